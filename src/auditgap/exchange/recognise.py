"""Which tool wrote a file, told by what is in it and never by its name."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from auditgap.errors import DataError, UsageError
from auditgap.exchange.garak import is_garak, read_garak
from auditgap.exchange.inspect_ai import is_inspect, read_inspect, read_inspect_archive
from auditgap.exchange.lm_eval import is_lm_eval, is_lm_eval_sample, read_lm_eval, samples_beside
from auditgap.exchange.log import ImportedLog
from auditgap.exchange.promptfoo import is_promptfoo, read_promptfoo
from auditgap.exchange.reading import Json, Limits, document, first_bytes, lines, shown
from auditgap.records import explain

__all__ = ["read_log"]

KNOWN = "an Inspect AI log (.eval or .json), lm-evaluation-harness results, a garak report (JSONL) or promptfoo results (JSON)"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read_log(path: Path, *, samples: Sequence[Path] = (), limits: Limits | None = None) -> tuple[ImportedLog, ...]:
    """The log in a file, one per model that it is about.

    `samples` are lm-evaluation-harness samples files; those that lie beside the results under the harness's names are found.

    Raises:
        DataError: the file is of no known tool, damaged, too large, or contradicts its format.
        UsageError: samples files were given for another tool's log.
    """
    try:
        logs, takes_samples = _read(path, tuple(samples), limits or Limits())
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, ImportedLog)}; export the log again") from None
    if samples and not takes_samples:
        raise UsageError(f"--samples belongs to lm-evaluation-harness results; {path} is a log of {logs[0].tool}")
    return logs


def _read(path: Path, samples: tuple[Path, ...], limits: Limits) -> tuple[tuple[ImportedLog, ...], bool]:
    if first_bytes(path, 4) in ZIP:
        return (read_inspect_archive(path, limits),), False
    first = _first_line(path, limits)
    if is_garak(first):
        return (read_garak(path, limits),), False
    if is_lm_eval_sample(first):
        raise DataError(
            f"{path}: expected results, got the samples of lm-evaluation-harness; give results_*.json, which names them"
        )
    found = document(path, limits)
    if is_inspect(found):
        return (read_inspect(path, limits),), False
    if is_lm_eval(found):
        return (read_lm_eval(path, limits, samples or samples_beside(path)),), True
    if is_promptfoo(found):
        return read_promptfoo(path, limits), False
    raise DataError(f"{path}: expected {KNOWN}, got JSON with the fields {shown(', '.join(found))[:120] or '(none)'}")


def _first_line(path: Path, limits: Limits) -> Json:
    """The first line as an object; empty if it is none, as in a document printed over several lines."""
    try:
        return next((row for _, row in lines(path, limits)), {})
    except DataError:
        return {}
