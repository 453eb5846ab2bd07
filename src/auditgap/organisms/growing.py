"""Several organisms at once: one process and one thread each, which is fastest for models this small."""

import _thread
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from auditgap.organisms.recipe import Organism, Recipe, cached
from auditgap.progress import Progress, quiet

__all__ = ["cached_all", "processes"]

TIDY_UP_S = 3
"""What a process whose parent is gone has to remove its unfinished files."""


def processes(n_workers: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which end when this one does, however it ends."""
    return ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def cached_all(
    recipes: Sequence[Recipe], cache_dir: Path | str, *, n_workers: int = 1, progress: Progress = quiet
) -> Iterator[Organism]:
    """The organisms of these recipes in their order, each as `cached` gives it.

    Raises:
        CannotMeasure: a plant did not take; those that had not begun are left.
    """
    if n_workers == 1:
        yield from (cached(recipe, cache_dir, progress=progress) for recipe in recipes)
        return
    with processes(n_workers) as pool:
        jobs = [pool.submit(cached, recipe, cache_dir) for recipe in recipes]
        try:
            for n, job in enumerate(jobs, start=1):
                yield job.result()
                progress("organisms", n, len(jobs))
        except BaseException:  # an error or Ctrl-C must not wait for organisms that nobody will use
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        _thread.interrupt_main()
        time.sleep(TIDY_UP_S)
        os._exit(1)
