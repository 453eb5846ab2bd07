"""`auditgap coverage`: which failure modes which instrument would have caught, measured, unmeasured or out of reach."""

from pathlib import Path

import click

from auditgap.cli.options import as_json, json_flag, table

__all__ = ["command"]


@click.command("coverage")
@click.option(
    "--store", default="out/calibration/store", show_default=True, help="Store of a calibration; without one nothing is measured."
)
@json_flag
def command(store: str, as_json_: bool) -> None:
    """Failure modes by instruments: measured power with its interval, not measured, or cannot reach."""
    from auditgap.evidence import Store
    from auditgap.governance import failure_modes, licences
    from auditgap.governance.coverage import coverage
    from auditgap.records import Measured

    made = []
    if "://" in store or (Path(store) / "auditgap.db").exists():
        with Store.open(store, create=False) as opened:
            made = opened.calibrations()
    cells = coverage(failure_modes().values(), [entry.id for entry in licences().instruments], made[-1].record if made else None)
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
