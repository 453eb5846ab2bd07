"""The streaming logistic fit against scikit-learn: 200,000 rows of width 1024, each fit in a process of its own.

`python -m bench.fitting ours|scikit-learn FOLDER` is that process; it prints one JSON object.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from auditgap.stats import auroc, fit_logistic_streaming
from bench.rows import Row, measured, missing
from bench.timing import spread

__all__ = ["fit_rows"]

N_ROWS, WIDTH, N_HELD_OUT = 200_000, 1024, 20_000
BATCH = 10_000
GOAL = 4.0
NOTES = {
    "scikit-learn": "Same objective (C = 1), features as they come, on scales that differ by 32: that is what costs scikit-learn its "  # noqa: E501
    "iterations. The next row takes it away. Peak memory counts the input, held in memory.",
    "scikit-learn, standardised": "Standardising is not timed. These features are independent, so it makes the loss round and a few "  # noqa: E501
    "iterations are enough: where this is above 1, ours is the faster, below 1 the slower.",
}


def fit_rows(*, n_repetitions: int, n_rows: int = N_ROWS) -> list[Row]:
    """Speed, memory and agreement."""
    name = f"probe fit, {n_rows:,} x {WIDTH} float32, against scikit-learn LogisticRegression"
    if sys.platform != "linux":
        return [missing(name, goal=GOAL, better="higher", reason="peak memory is read from Linux's /proc")]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), n_rows)
        found: dict[str, list[dict[str, float]]] = {"ours": [], "scikit-learn": [], "scikit-learn, standardised": []}
        order, generator = list(found), random.Random(0)
        for _ in range(n_repetitions):
            generator.shuffle(order)
            for which in order:
                command = [sys.executable, "-m", "bench.fitting", which, folder]
                found[which].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        size = (Path(folder) / "train.npy").stat().st_size
    rows = []
    for which, goal in (("scikit-learn", GOAL), ("scikit-learn, standardised", None)):
        pairs = list(zip(found[which], found["ours"], strict=True))
        rows.append(
            measured(
                name if goal else f"{name}, features standardised for it beforehand",
                spread([theirs["seconds"] / ours["seconds"] for theirs, ours in pairs]),
                goal=goal,
                better="higher",
                note=NOTES[which],
                also={
                    "ours, s": statistics.median(ours["seconds"] for _, ours in pairs),
                    "ours, passes": pairs[0][1]["passes"],
                    "theirs, iterations": pairs[0][0]["passes"],
                    "AUROC on held-out rows, ours": pairs[0][1]["auroc"],
                    "AUROC on held-out rows, theirs": pairs[0][0]["auroc"],
                    "peak memory over input, ours (goal 1.2)": max(ours["peak_bytes"] for _, ours in pairs) / size,
                    "peak memory over input, theirs": max(theirs["peak_bytes"] for theirs, _ in pairs) / size,
                },
            )
        )
    return rows


def _write(folder: Path, n_rows: int) -> None:
    """Features off the origin, on scales that fall by 30 as those of a residual stream do, with a planted direction."""
    rng = np.random.default_rng(0)
    scales = (3 * np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)
    mean = rng.standard_normal(WIDTH, dtype=np.float32)
    planted = rng.standard_normal(WIDTH, dtype=np.float32) * np.float32(2 / WIDTH**0.5)
    for name, n in (("train", n_rows), ("held_out", N_HELD_OUT)):
        features = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n, WIDTH))
        labels = np.empty(n, np.int64)
        for start in range(0, n, BATCH):
            plain = rng.standard_normal((min(BATCH, n - start), WIDTH), dtype=np.float32)
            features[start : start + BATCH] = plain * scales + mean
            labels[start : start + BATCH] = rng.random(len(plain)) < 1 / (1 + np.exp(-plain @ planted))
        features.flush()
        np.save(folder / f"{name}_labels.npy", labels)


def _fit(which: str, folder: Path) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    labels, truth = np.load(folder / "train_labels.npy"), np.load(folder / "held_out_labels.npy")
    before = _status_bytes("VmRSS")
    features = np.load(folder / "train.npy")
    middle, scale = np.float32(0), np.float32(1)
    if which.endswith("standardised"):
        middle, scale = features[:BATCH].mean(0), features[:BATCH].std(0)
        for start in range(0, len(features), BATCH):
            features[start : start + BATCH] = (features[start : start + BATCH] - middle) / scale
    start_s = time.process_time()
    if which == "ours":
        fit = fit_logistic_streaming(features, labels, l2=1 / len(labels))
        passes, score = fit.n_passes, fit.scores
    else:
        peer = LogisticRegression(C=1.0, max_iter=10_000).fit(features, labels)
        passes, score = int(peer.n_iter_[0]), peer.decision_function
    seconds, peak = time.process_time() - start_s, _status_bytes("VmHWM") - before
    held_out = (np.load(folder / "held_out.npy") - middle) / scale
    return {"seconds": seconds, "peak_bytes": peak, "passes": passes, "auroc": auroc(score(held_out), truth)}


def _status_bytes(field: str) -> int:
    """A line of the kernel's account of this process. Not `ru_maxrss`: that starts from the parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(_fit(sys.argv[1], Path(sys.argv[2]))))
