"""`auditgap compute`: training FLOP under each regime's counting rules, and how many parameters a config.json describes."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.governance.compute import ComputeReport, Estimate, ModelResult
    from auditgap.models.parameters import ParameterCount

__all__ = ["command"]


@click.command("compute")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--regime", "regimes", multiple=True, help="Rule set id; repeatable [default: all but rescinded ones].")
@click.option("--tokens", help="Training tokens of a model given by its config, e.g. 14.8T: its compute is assessed too.")
@json_flag
def command(file: Path, regimes: tuple[str, ...], tokens: str | None, as_json_: bool) -> None:
    """Count training compute from a ledger, or parameters from a model's config.

    FILE is a YAML ledger of activities, a Hugging Face config.json, or a folder that holds one. Each FLOP line gets a verdict:
    below, above or straddles; a line that runs through the estimate should be treated as crossed.
    """
    from auditgap.governance.compute import assess, one_run, read_ledger, rules_for

    chosen = rules_for(regimes)
    if not (file.is_dir() or file.suffix == ".json"):
        if tokens is not None:
            raise click.UsageError("--tokens belongs to a config.json; a ledger states tokens on its lines")
        report = assess(read_ledger(file), chosen)
        as_json(report) if as_json_ else _print_report(report)
        return
    from auditgap.models.parameters import count_parameters

    count = count_parameters(file)
    report = assess(one_run(file, total=count.total, active=count.active, tokens=tokens), chosen) if tokens else None
    if as_json_:
        as_json({"parameters": count, "compute": report})
        return
    _print_count(count)
    if report:
        _print_report(report)


def _print_count(count: "ParameterCount") -> None:
    rows = [
        ("total", _large(count.total), "tied matrices once"),
        ("active", _large(count.active), _experts(count)),
        ("embedding", _large(count.embedding), "look-up tables" + (", one of them also the output head" if count.tied else "")),
        ("active without look-up", _large(count.active_without_lookup), "some publishers' convention for active"),
    ]
    table(f"parameters of {count.architecture} ({count.model_type})", ("what", "number", "reading"), rows)
    for note in count.notes:
        click.echo(f"note: {note}")
    click.echo(f"in a ledger: parameters: {{total: {count.total}, active: {count.active}}}")


def _experts(count: "ParameterCount") -> str:
    if not count.n_experts:
        return "dense: every parameter works on every token"
    return f"{count.n_experts_per_token} of {count.n_experts} routed experts per token, {_large(count.routed)} in routed experts"


def _print_report(report: "ComputeReport") -> None:
    for model in report.models:
        _print_model(model)
    click.echo("\n".join([*_rules(report), report.disclaimer]))


def _print_model(model: "ModelResult") -> None:
    from auditgap.governance.compute import show

    name, regimes = model.model, model.regimes
    rows = [
        (line.line, line.activity, _range(line.flop.active), show(line.flop.total.mid), *(r.lines[i].decision for r in regimes))
        for i, line in enumerate(regimes[0].lines)
    ]
    columns = ("line", "activity", "FLOP", "all parameters", *(r.rule_set for r in regimes))
    table(f"{name}: lines", columns, rows)
    rows = [
        (
            f"{r.rule_set} {f.line.id} {f.line.comparator} {show(f.line.flop)}",
            _range(f.total.counted) + _opened(f.total.with_open, f.total.counted),
            f"{show(f.low_flop)} .. {show(f.high_flop)}",
            f.verdict + (f" (mid {f.best_estimate})" if f.verdict == "straddles" else ""),
            f"{show(f.total.all_parameters.mid)} {f.all_parameters}",
        )
        for r in regimes
        for f in r.flop_lines
    ]
    table(f"\n{name}: verdicts", ("FLOP line", "counted", "with tolerance", "verdict", "all parameters"), rows)
    click.echo("\n" + "".join(f"{text}\n" for text in _remarks(model)))


def _remarks(model: "ModelResult") -> list[str]:
    """What the tables of one model do not hold: modification, capability, blind spots, lineage, notes."""
    lines = []
    for regime in model.regimes:
        if m := regime.modifier:
            change = f"{_range(m.modification)} FLOP against a line at {_range(m.line)}"
            where = f"[{m.pin.source}, {m.pin.paragraph}; {m.verified}]"
            lines.append(f"modification: {m.verdict} for {regime.rule_set}: {change}; {m.meaning} {where}")
    for c in model.capability:
        late = "" if c.registered_first else ", set after the score"
        lines.append(f"capability: {c.benchmark} {c.score.mid:g} is {c.verdict} its bar {c.bar:g}{late}")
    for regime in model.regimes:
        for r in regime.routes:
            lines.append(
                f"capability route: {r.trigger}: {regime.rule_set}, {r.route.title} [{r.route.pin.paragraph}; {r.route.verified}]"
            )
    spots: dict[str, list[str]] = {}
    for regime in model.regimes:
        for f in regime.flop_lines:
            if f.blind_spot:
                spots.setdefault(f.blind_spot, []).append(f"{regime.rule_set} {f.line.id}")
    lines += [f"{note} ({', '.join(where)})" for note, where in spots.items()]
    lines += [f"lineage: {'  ' * (a.depth - 1)}{a.descendant} <- {a.relation} {a.model}" for a in model.ancestors]
    return lines + [f"note: {note}" for note in model.notes]


def _rules(report: "ComputeReport") -> list[str]:
    """The rules that were used, each with its place in the text and how sure we are of it."""
    used: dict[str, dict[str, list[str]]] = {}
    for regime in (regime for model in report.models for regime in model.regimes):
        title = f"{regime.rule_set}: {regime.title}; {regime.edition} ({regime.status})"
        said = used.setdefault(title, {})
        for r in regime.lines:
            what = said.setdefault(f"{r.why} [{r.pin.source}, {r.pin.paragraph}; {r.verified}]", [r.decision])
            what += [name for name in (f"{r.activity} ({r.output})" if r.output else r.activity,) if name not in what]
        for f in regime.flop_lines:
            said[f"{f.line.further or f.line.title} [{f.line.pin.source}, {f.line.pin.paragraph}; {f.line.verified}]"] = [
                f.line.id
            ]
    return [
        text
        for title, said in used.items()
        for text in (title, *(f"  {what[0]}{' ' * bool(what[1:])}{', '.join(what[1:])}: {why}" for why, what in said.items()), "")
    ]


def _range(estimate: "Estimate") -> str:
    from auditgap.governance.compute import show

    if estimate.low == estimate.high:
        return show(estimate.mid)
    return f"{show(estimate.mid)} ({show(estimate.low)} .. {show(estimate.high)})"


def _opened(with_open: "Estimate", counted: "Estimate") -> str:
    return f", with open lines {_range(with_open)}" if with_open != counted else ""


def _large(n: int) -> str:
    if n < 1e9:
        return f"{n:,}"
    return f"{n:,} ({n / 1e12:.3g} T)" if n >= 1e12 else f"{n:,} ({n / 1e9:.3g} B)"
