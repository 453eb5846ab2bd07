"""Small ledgers for tests."""

import json
from pathlib import Path

from auditgap.governance.compute import FlopLineResult, Ledger, ModelResult, RuleSet, assess, rule_sets

EXAMPLES = Path(__file__).parents[3] / "examples" / "compute"


def ledger(*models: dict[str, object]) -> Ledger:
    """A ledger from plain mappings, as a file would hold them."""
    return Ledger.parse({"models": list(models)}, where="example")


def model(name: str, *lines: dict[str, object], **fields: object) -> dict[str, object]:
    """A model whose lines are named by their place unless they have a name."""
    return {"name": name, "lines": [{"name": f"line {i}"} | line for i, line in enumerate(lines)]} | fields


def update(flop: float, **fields: object) -> dict[str, object]:
    """A line of stated FLOP that every rule set counts."""
    return {"activity": "update", "flop": flop} | fields


def written(folder: Path, document: object) -> Path:
    """A YAML file of that content, without aliases."""
    path = folder / "ledger.yaml"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")  # JSON is YAML
    return path


def eu() -> RuleSet:
    return rule_sets()["eu-gpai"]


def result(book: Ledger, name: str, rules: RuleSet | None = None) -> ModelResult:
    """One model under one rule set (the EU's)."""
    return next(found for found in assess(book, [rules or eu()]).models if found.model == name)


def against(book: Ledger, name: str, line: str = "systemic-risk", rules: RuleSet | None = None) -> FlopLineResult:
    """One model against one FLOP line."""
    return next(found for found in result(book, name, rules).regimes[0].flop_lines if found.line.id == line)
