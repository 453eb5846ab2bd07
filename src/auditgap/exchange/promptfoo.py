"""promptfoo results: the JSON that `promptfoo eval --output results.json` writes, one log per provider.

A row passes if all its assertions do. Rows that ended in an error (failure reason 2) were not scored: promptfoo counts them apart
from failures, and so does this reader. Rows with the same variables are one group, whatever the prompt or the repeat.

Source: https://github.com/promptfoo/promptfoo, `src/types/index.ts` (OutputFile, EvaluateSummaryV3); summary versions 2 and 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import DataError
from auditgap.exchange.log import ImportedLog, Metric, in_order
from auditgap.exchange.reading import Json, Limits, count, document, mapping, refuse, sequence, shown, slug, text, when
from auditgap.records import canonical_json, digest_of

__all__ = ["is_promptfoo", "read_promptfoo"]

ERROR = 2
"""`ResultFailureReason.ERROR`: the row has no verdict."""


class _Row(NamedTuple):
    """What is kept of one row."""

    provider: str
    """Its label, if it has one, else its id: promptfoo's totals name it so."""
    passed: bool | None
    """None if it ended in an error."""
    group: str
    plugin: str
    """Red-team plugin that wrote the test; empty for none."""


def is_promptfoo(found: Json) -> bool:
    """True for the fields that every results file has."""
    results = found.get("results")
    return isinstance(results, dict) and "results" in results and "stats" in results


def read_promptfoo(path: Path, limits: Limits) -> tuple[ImportedLog, ...]:
    """One log per provider in the file, in the order of their names.

    Raises:
        DataError: it is not what the format says, or a row occurs twice.
    """
    found, where = document(path, limits), str(path)
    results = mapping(found.get("results"), f"{where}: results")
    rows = _rows(sequence(results.get("results"), f"{where}: results.results"), where)
    if not rows:
        raise DataError(f"{where}: expected results, got none; run 'promptfoo eval --output results.json' again")
    stated = _stated(results, [row.provider for row in rows], where)
    metadata = mapping(found.get("metadata") or {}, f"{where}: metadata")
    config = mapping(found.get("config") or {}, f"{where}: config")
    version = text(metadata.get("promptfooVersion", "unknown"), f"{where}: metadata.promptfooVersion")
    task = text(" ".join(str(config.get("description") or "promptfoo").split()), f"{where}: config.description")
    at = when(results.get("timestamp"), f"{where}: results.timestamp")
    logs = []
    for provider in sorted({row.provider for row in rows}):
        own = [row for row in rows if row.provider == provider]
        passed, failed, errors = stated.get(provider, (None, 0, 0))
        logs.append(
            ImportedLog(
                tool="promptfoo",
                version=version,
                model=provider,
                task=task,
                started_at=at,
                finished_at=at,
                packages={} if version == "unknown" else {"promptfoo": version},
                n_stated=None if passed is None else passed + failed + errors,
                n_held=len(own),
                metrics=_metrics(own, None if passed is None or passed + failed == 0 else passed / (passed + failed)),
            )
        )
    return tuple(logs)


def _rows(written: Sequence[object], where: str) -> list[_Row]:
    rows, seen = [], set()
    for index, item in enumerate(written):
        at = f"{where}: results.results[{index}]"
        row = mapping(item, at)
        if not isinstance(row.get("success"), bool):
            refuse(f"{at}.success", "true or false", row.get("success"))
        provider = row.get("provider")
        name = text((provider.get("label") or provider.get("id")) if isinstance(provider, dict) else provider, f"{at}.provider")
        key = str(row.get("id") or (row.get("testIdx"), row.get("promptIdx"), name, index if "testIdx" not in row else ""))
        if key in seen:
            raise DataError(f"{at}: expected each row once, got {shown(key)} twice; remove one")
        seen.add(key)
        metadata = mapping(row.get("metadata") or {}, f"{at}.metadata")
        passed = None if row.get("failureReason") == ERROR else row["success"] is True
        rows.append(_Row(name, passed, _group(row, at), text(metadata.get("pluginId") or "", f"{at}.metadata.pluginId")))
    return rows


def _group(row: Json, at: str) -> str:
    """Digest of the row's variables; its test number if it has none."""
    variables = mapping(row.get("vars") or {}, f"{at}.vars")
    if not variables:
        return str(row.get("testIdx", at))
    try:
        return digest_of(canonical_json(variables))
    except ValueError:
        refuse(f"{at}.vars", "JSON with integers below 2**53 and finite numbers", variables)


def _stated(results: Json, providers: list[str], where: str) -> dict[str, tuple[int, int, int]]:
    """Passed, failed and errors per provider, as the file's own totals say."""
    table = mapping(results.get("table") or {}, f"{where}: results.table")
    head = mapping(table.get("head") or {}, f"{where}: results.table.head")
    found: dict[str, tuple[int, int, int]] = {}
    for index, item in enumerate(sequence(results.get("prompts") or head.get("prompts") or [], f"{where}: results.prompts")):
        at = f"{where}: results.prompts[{index}]"
        prompt = mapping(item, at)
        metrics = mapping(prompt.get("metrics") or {}, f"{at}.metrics")
        if metrics:
            names = ("testPassCount", "testFailCount", "testErrorCount")
            counts = [count(metrics.get(name, 0), f"{at}.metrics.{name}") for name in names]
            before = found.get(str(prompt.get("provider")), (0, 0, 0))
            found[str(prompt.get("provider"))] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
    if not found and len(set(providers)) == 1:
        stats = mapping(results.get("stats"), f"{where}: results.stats")
        passed, failed, errors = (
            count(stats.get(n, 0), f"{where}: results.stats.{n}") for n in ("successes", "failures", "errors")
        )
        return {providers[0]: (passed, failed, errors)}
    return found


def _metrics(rows: Sequence[_Row], stated: float | None) -> tuple[Metric, ...]:
    """The pass rate of all rows, and of each red-team plugin if there are several."""
    plugins = sorted({row.plugin for row in rows} - {""})
    parts = {f"pass_rate.{slug(plugin)}": [row for row in rows if row.plugin == plugin] for plugin in plugins}
    found = [_rate("pass_rate", "all rows", rows, stated)]
    return (*found, *(_rate(name, f"the plugin '{part[0].plugin}'", part, None) for name, part in parts.items()))


def _rate(name: str, of: str, rows: Sequence[_Row], stated: float | None) -> Metric:
    scored = [row for row in rows if row.passed is not None]
    values, groups = in_order([float(row.passed is True) for row in scored], [row.group for row in scored])
    return Metric(
        name=name,
        about=f"Share of rows whose assertions all passed, of {of}; rows that ended in an error are left out.",
        stated=stated,
        values=values,
        groups=groups,
        pooled=True,
        n_unscored=len(rows) - len(scored),
        missing="" if scored else f"all {len(rows)} rows ended in an error",
    )
