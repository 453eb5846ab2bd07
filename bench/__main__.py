"""`python -m bench [--quick] [ROW ...]`: measure, write results.json and the table in README.md."""

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # read when NumPy and torch load
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

from bench.alarms import alarm_rows  # noqa: E402
from bench.capture import capture_rows  # noqa: E402
from bench.fitting import fit_rows  # noqa: E402
from bench.monitoring import monitor_rows  # noqa: E402
from bench.patching import head_rows, sweep_rows  # noqa: E402
from bench.proxy import proxy_rows  # noqa: E402
from bench.rows import Row  # noqa: E402
from bench.serving import serving_rows  # noqa: E402
from bench.streaming import stream_rows  # noqa: E402
from bench.subjects import llama  # noqa: E402
from bench.table import write_table  # noqa: E402

HERE = Path(__file__).parent
PACKAGES = ("auditgap", "torch", "transformers", "numpy", "scipy", "scikit-learn", "transformer-lens", "pyvene")


def main() -> None:
    """Measure what was asked for (everything by default) and keep the rest of the last results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", help="capture, sweep, heads, fit, stream, monitor, serving, proxy, alarms; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, small data, nothing written: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as folder:
        model = llama(Path(folder) / "wide")
        narrow = llama(Path(folder) / "narrow", width=256, hidden=704)
        measures: dict[str, Callable[[], list[Row]]] = {
            "capture": lambda: capture_rows(model, n_repetitions=2 if quick else 15),
            "sweep": lambda: sweep_rows(model, n_repetitions=2 if quick else 11, long=not quick),
            "heads": lambda: head_rows(model, n_repetitions=1 if quick else 5),
            "fit": lambda: fit_rows(n_repetitions=1 if quick else 5, **({"n_rows": 5000} if quick else {})),
            "stream": lambda: stream_rows(narrow, n_prompts=2000 if quick else 20_000),
            "monitor": lambda: monitor_rows(model, n_repetitions=2 if quick else 15),
            "serving": lambda: serving_rows(Path(folder), n_turns=2 if quick else 15),
            "proxy": lambda: proxy_rows(n_calls=40 if quick else 1000),
            "alarms": lambda: alarm_rows(n_repetitions=2 if quick else 15),
        }
        if unknown := set(arguments.rows) - set(measures):
            parser.error(f"unknown rows {', '.join(sorted(unknown))}; known: {', '.join(measures)}")
        found = {
            name: [row.model_dump(mode="json") for row in measure()]
            for name, measure in measures.items()
            if _asked(name, arguments)
        }
    print(json.dumps(found, indent=2))
    if not quick:
        path = HERE / "results.json"
        earlier = json.loads(path.read_text()) if path.exists() else {"rows": {}, "environment": {}}
        rows = {name: found.get(name, earlier["rows"].get(name, [])) for name in measures}
        environment = {  # rows that are kept were measured with what was installed then
            name: earlier["environment"].get(name, version) if version == "not installed" else version
            for name, version in _environment().items()
        }
        path.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2, ensure_ascii=False) + "\n")
        write_table(HERE / "README.md", environment, rows)


def _asked(name: str, arguments: argparse.Namespace) -> bool:
    return not arguments.rows or name in arguments.rows


def _environment() -> dict[str, str]:
    """Versions and the kind of machine; no names, no paths."""
    found = {"python": platform.python_version(), "system": platform.system(), "processor": _processor(), "threads": "1"}
    found["cores"] = str(os.cpu_count())
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed" if package != "auditgap" else "from source"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
