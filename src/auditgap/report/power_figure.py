"""Power over difficulty as inline SVG: for each organism the best look at the inside beside the best look at behaviour."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from auditgap.records import Calibration, Measured, PowerCell
from auditgap.report.figures import INK, LINE, drawn

__all__ = ["best", "curves", "power_svg"]

MAX_FALSE_ALARMS = 0.05
N_COLUMNS = 3
LABEL_WIDTH = 22
"""Characters of a difficulty's name on one line."""


def power_svg(calibration: Calibration, *, prefix: str = "power") -> str:
    """One `<svg>`: a panel per organism, two intervals per difficulty; dashed, what the lower end must reach for a licence."""
    return drawn(lambda: _canvas(calibration), prefix=prefix, label=lambda: _described(calibration))


def curves(calibration: Calibration) -> dict[str, dict[str, list[PowerCell]]]:
    """The cells by organism and difficulty, the default first."""
    found: dict[str, dict[str, list[PowerCell]]] = {}
    for cell in sorted(calibration.cells, key=lambda cell: (cell.organism, cell.difficulty != "default")):
        found.setdefault(cell.organism, {}).setdefault(cell.difficulty, []).append(cell)
    return found


def best(cells: Sequence[PowerCell], *, behavioural: bool) -> PowerCell | None:
    """The detector of the highest power among those that flagged at most 5 % of twins and of decoys; None if there is none.

    It is chosen on the models on which it is reported, so that it flatters a little where several were tried.
    """
    fit = [
        (cell.power.value, cell)
        for cell in cells
        if (cell.family == "behavioural") == behavioural and isinstance(cell.power, Measured) and _quiet(cell)
    ]
    return max(fit, key=lambda pair: pair[0])[1] if fit else None


def _quiet(cell: PowerCell) -> bool:
    rates = (cell.false_alarms_twin, cell.false_alarms_decoy)
    return all(not isinstance(rate, Measured) or rate.value <= MAX_FALSE_ALARMS for rate in rates)


def _canvas(calibration: Calibration) -> Canvas:
    panels = curves(calibration)
    n_rows = -(-len(panels) // N_COLUMNS)
    canvas = Canvas(figsize=(9.5, 0.6 + 1.9 * n_rows), layout="constrained")
    grid = canvas.subplots(n_rows, N_COLUMNS, squeeze=False, sharex=True)
    for axes, (organism, by_difficulty) in zip(grid.flat, panels.items(), strict=False):
        axes.axvline(0.8, color=INK, alpha=0.5, linestyle=(0, (4, 3)), linewidth=0.8)
        for row, cells in enumerate(by_difficulty.values()):
            _interval(axes, row - 0.14, best(cells, behavioural=False), LINE)
            _interval(axes, row + 0.14, best(cells, behavioural=True), INK)
        axes.set_yticks(range(len(by_difficulty)), [fill(name, LABEL_WIDTH) for name in by_difficulty], fontsize=6.5)
        axes.set_ylim(len(by_difficulty) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_title(organism, fontsize=9, loc="left")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    canvas.supxlabel("power at most 5 % false alarms; blue: from the inside, black: from behaviour", fontsize=9)
    return canvas


def _interval(axes: Axes, y: float, cell: PowerCell | None, colour: str) -> None:
    if cell is None or not isinstance(cell.power, Measured):
        return
    ends = (cell.power.interval.low, cell.power.interval.high)
    axes.plot(ends, (y, y), color=colour, linewidth=3, alpha=0.45, solid_capstyle="butt")
    axes.plot((cell.power.value,), (y,), color=colour, marker="o", markersize=4, linestyle="none")


def _described(calibration: Calibration) -> str:
    said = []
    for organism, by_difficulty in curves(calibration).items():
        for difficulty, cells in by_difficulty.items():
            pair = [("inside", best(cells, behavioural=False)), ("behaviour", best(cells, behavioural=True))]
            rates = [f"{name} {cell.power.value:.2f}" for name, cell in pair if cell and isinstance(cell.power, Measured)]
            said.append(f"{organism} ({difficulty}): {', '.join(rates) or 'nothing quiet enough'}")
    return f"Power at most 5 % false alarms. {'; '.join(said)}."
