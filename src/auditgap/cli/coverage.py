"""`auditgap coverage`: which failure modes which instrument would have caught, measured, unmeasured or out of reach."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.records import Calibration

__all__ = ["command"]


@click.command("coverage")
@click.option("--store", help="Store of a calibration of your own [default: the calibration that auditgap ships].")
@click.option("--card", is_flag=True, help="Print the feasibility card instead: what was measured per safety application.")
@click.option(
    "--bench", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="For --card: results of `make bench`."
)
@json_flag
def command(store: str | None, card: bool, bench: Path | None, as_json_: bool) -> None:
    """Failure modes by instruments: measured power with its interval, not measured, or cannot reach."""
    from auditgap.errors import UsageError
    from auditgap.evidence import Store
    from auditgap.governance import failure_modes, licences, shipped_calibration
    from auditgap.governance.coverage import coverage
    from auditgap.records import Measured

    calibration = shipped_calibration()
    if store is not None:
        with Store.open(store, create=False) as opened:
            made = opened.calibrations()
        if not made:
            raise UsageError(f"expected a calibration in {store}, got none: run 'auditgap calibrate'")
        calibration = made[-1].record
    if bench is not None and not card:
        raise UsageError("--bench belongs to --card; give both")
    if card:
        _card(calibration, bench, as_json_=as_json_)
        return
    cells = coverage(failure_modes().values(), [entry.id for entry in licences().instruments], calibration)
    if as_json_:
        as_json([cell._asdict() for cell in cells])
        return
    rows = []
    for cell in cells:
        power = cell.best.power if cell.best else None
        said = (
            f"power {power.value:.2f} ({power.interval.low:.2f} to {power.interval.high:.2f}, n = {power.n})"
            if isinstance(power, Measured)
            else cell.state.replace("-", " ")
        )
        if cell.state != "cannot-reach":
            rows.append((cell.failure_mode, cell.instrument, said, cell.reason))
    table("coverage", ("failure mode", "instrument", "state", "why"), rows)
    reached = {row[0] for row in rows}
    blind = [mode for mode in failure_modes() if mode not in reached]
    click.echo(f"no instrument reaches: {', '.join(blind)}" if blind else "every failure mode is reached by some instrument")


def _card(calibration: "Calibration | None", bench: Path | None, *, as_json_: bool) -> None:
    """The feasibility card in Markdown, or as JSON."""
    from auditgap.report.feasibility import feasibility_card, read_bench, render_card

    results = read_bench(bench) if bench else None
    found = feasibility_card(calibration, results)
    if as_json_:
        as_json(found)
    else:
        click.echo(render_card(found, results), nl=False)
