"""`auditgap monitor`: probes inside generation."""

from typing import get_args

import click

from auditgap.cli.monitor_serve import serve, token, traffic
from auditgap.cli.monitor_watch import watch
from auditgap.cli.options import as_json, device, json_flag, table, threads, use_threads
from auditgap.records.monitor import AggregationKind, MonitorCard, MonitorPolicy, PositionPolicy

__all__ = ["command"]

_monitor = click.option(
    "--monitor", "folder", required=True, type=click.Path(file_okay=False), help="Folder of a fitted monitor."
)
_dtype = click.option("--dtype", default="float32", show_default=True)
_revision = click.option("--revision", help="Commit of a Hub model.")
_new_tokens = click.option(
    "--max-new-tokens",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Length of the replies; 0 reads the prompt.",
)


@click.group("monitor")
def command() -> None:
    """Fit probes that watch generation, and score prompts with them."""


@command.command("fit")
@click.argument("model")
@click.option(
    "--data", required=True, help="Contrast set: FILE.jsonl, FILE.csv or shipped:NAME. The second class is watched for."
)
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for the card and the weights.")
@click.option("--traffic", help="Ordinary requests, none of them to be flagged: they calibrate the threshold.")
@click.option("--name", default="monitor", show_default=True)
@click.option("--watches", help="What a flag means [default: the data's second class].")
@click.option("--layers", help="Layers to try, as 3,4,5 [default: all].")
@click.option("--position", type=click.Choice(get_args(PositionPolicy)), default="prompt_end", show_default=True)
@click.option("--aggregation", type=click.Choice(get_args(AggregationKind)), help="[default: last at the prompt's end, else max]")
@click.option("--max-fpr", "max_fprs", type=float, multiple=True, default=(0.01, 0.05), show_default=True, help="Repeatable.")
@_new_tokens
@click.option("--seed", default=0, show_default=True)
@_revision
@_dtype
@device
@threads
@json_flag
def fit(
    model: str,
    data: str,
    out: str,
    traffic: str | None,
    name: str,
    watches: str | None,
    layers: str | None,
    position: PositionPolicy,
    aggregation: AggregationKind | None,
    max_fprs: tuple[float, ...],
    max_new_tokens: int,
    seed: int,
    revision: str | None,
    dtype: str,
    device: str,
    threads: int | None,
    as_json_: bool,
) -> None:
    """Fit a monitor on MODEL, calibrate its thresholds, and write it to a folder."""
    from auditgap.data import load
    from auditgap.models import open_model
    from auditgap.monitor import fit, save
    from auditgap.records.monitor import Aggregation

    contrast, ordinary = load(data, "contrast", seed=seed), load(traffic, "prompts", seed=seed) if traffic else None
    use_threads(threads, model)
    found = fit(
        open_model(model, revision=revision, dtype=dtype, device=device),
        contrast,
        name=name,
        watches=watches or contrast.classes[1],
        traffic=ordinary,
        layers=_layers(layers),
        position=position,
        aggregation=Aggregation(kind=aggregation) if aggregation else None,
        max_fprs=max_fprs,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    save(found, out)
    as_json(found.card) if as_json_ else _print_card(found.card, out)


@command.command("score")
@click.argument("model")
@_monitor
@click.option("--prompts", required=True, help="FILE.jsonl, FILE.csv or shipped:NAME.")
@_new_tokens
@click.option("--max-fpr", default=0.01, show_default=True, help="The operating point in use.")
@click.option("--when-down", type=click.Choice(["refuse", "pass"]), default="refuse", show_default=True)
@_revision
@_dtype
@device
@threads
@json_flag
def score(
    model: str,
    folder: str,
    prompts: str,
    max_new_tokens: int,
    max_fpr: float,
    when_down: str,
    revision: str | None,
    dtype: str,
    device: str,
    threads: int | None,
    as_json_: bool,
) -> None:
    """Generate after each prompt on MODEL under the monitor's eyes: scores, flags and coverage.

    Exit 3: the monitor was not calibrated on this model and engine, or not at this rate.
    """
    from auditgap.data import load as load_data
    from auditgap.models import open_model
    from auditgap.monitor import load
    from auditgap.monitor import score as score_prompts

    monitor, rows = load(folder), load_data(prompts, "prompts")
    policy = MonitorPolicy.parse({"max_fpr": max_fpr, "when_down": when_down}, where="options")
    use_threads(threads, model)
    opened = open_model(model, revision=revision, dtype=dtype, device=device)
    found = score_prompts(opened, monitor, rows.prompts, max_new_tokens=max_new_tokens, policy=policy)
    watched = [scored.watched[0] for scored in found]
    if as_json_:
        as_json([each._asdict() | {"coverage": each.coverage, "reply": s.reply} for each, s in zip(watched, found, strict=True)])
        return
    lines = [
        (
            str(i),
            f"{each.score:.3f}" if each.score is not None else each.down,
            _flag(each.flagged_after),
            f"{each.coverage:.0%}",
            s.reply,
        )
        for i, (each, s) in enumerate(zip(watched, found, strict=True))
    ]
    table(f"{monitor.card.name} on {opened.subject.name}", ("row", "score", "flagged", "coverage", "reply"), lines)
    click.echo(f"\nflagged {sum(each.flagged for each in watched)} of {len(watched)}")


def _flag(after: int | None) -> str:
    return "no" if after is None else "before the reply" if after == 0 else f"after {after} tokens"


def _layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise click.BadParameter(f"expected layers as 3,4,5, got '{text}'", param_hint="--layers")
    return [int(part) for part in parts]


def _print_card(card: MonitorCard, out: str) -> None:
    places = ", ".join(probe.site for probe in card.probes)
    click.echo(
        f"{card.name} watches for: {card.watches}\nreads {places} ({card.position}, {card.aggregation.kind}); written to {out}\n"
    )
    rows = []
    for point in card.operating_points:
        on_test = (point.test_fpr, point.test_fpr_contrast, point.test_tpr)
        shares = [f"{m.value:.2%} of {m.n}" if m.status == "measured" else m.reason for m in on_test]
        rows.append((f"{point.max_fpr:.2%}", f"{point.threshold:.3f}", f"{point.n_exceeding} of {point.n_calibration}", *shares))
    table(
        "thresholds", ("at most", "threshold", "calibration above", "test: false alarms", "of the contrast set", "caught"), rows
    )
    for missing in card.unavailable:
        click.echo(f"no {missing.name}: {missing.reason}")
    if card.auroc.status == "measured":
        interval = card.auroc.interval
        click.echo(f"\nAUROC on test {card.auroc.value:.3f} ({interval.low:.3f} to {interval.high:.3f}), {card.auroc.n} groups")


for added in (serve, token, traffic, watch):
    command.add_command(added)
