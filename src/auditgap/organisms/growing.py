"""Several organisms at once: one process and one thread each, which is fastest for models this small."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from auditgap.organisms.recipe import Organism, Recipe, cached
from auditgap.progress import Progress, quiet

__all__ = ["cached_all"]


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
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_grow, recipe, cache_dir) for recipe in recipes]
        try:
            for n, job in enumerate(jobs, start=1):
                yield job.result()
                progress("organisms", n, len(jobs))
        except BaseException:  # an error or Ctrl-C must not wait for organisms that nobody will use
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _grow(recipe: Recipe, cache_dir: Path | str) -> Organism:
    torch.set_num_threads(1)
    return cached(recipe, cache_dir)
