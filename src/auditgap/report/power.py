"""A calibration as a Markdown page: what each instrument would have caught, joint misses, and what stays out of reach."""

from collections.abc import Mapping, Sequence

from auditgap.governance.coverage import CoverageCell
from auditgap.records import Calibration, Measured, Measurement, PowerCell
from auditgap.report.numbers import short, utc
from auditgap.report.power_figure import best, curves

__all__ = ["render_power"]

FOUND = 0.8
"""Power from which a plant counts as detectable."""

HARDEST = "| organism | found from the inside | missed | found from behaviour | missed |"
BEST = "| organism | difficulty | from the inside | power | from behaviour alone | power |"
HEAD = (
    "| failure mode | organism | difficulty | instrument | score | power | false alarms: twin | decoy | AUROC | power at 5 % "
    "| at 1 % |"
)
JOINT = "| failure mode | layers | missed by all | if they were independent |"


def render_power(calibration: Calibration, cells: Sequence[CoverageCell]) -> str:
    """The page; every rate with its exact 95 % interval and the number of organisms."""
    training, fresh = len(calibration.training_seeds), len(calibration.fresh_seeds)
    lines = [
        "# Measured power",
        "",
        f"Measured {utc(calibration.made_at)} with {_packages(calibration)}. Bars were fixed on {training} training seed(s) of "
        f"each recipe, registered, and applied to up to {fresh} fresh seed(s). Power holds for plants of this kind, size and "
        "strength, and for these versions of the instruments.",
        "",
        "## From the inside, and from behaviour alone",
        "",
        "The detector of the highest power among those that flagged at most 5 % of fresh twins and of fresh decoys. It is chosen",
        "on the models on which it is reported, which flatters it where several were tried; the next table has them all.",
        "",
        BEST,
        _rule(BEST),
        *(
            f"| {organism} | {difficulty} | {_best(cells, behavioural=False)} | {_best(cells, behavioural=True)} |"
            for organism, by_difficulty in curves(calibration).items()
            for difficulty, cells in by_difficulty.items()
        ),
        "",
        "## Minimum detectable difficulty",
        "",
        f"Where the power of that detector is at least {FOUND:g} (the rate itself; the intervals are above). What is missed was",
        "measured and lies below, or nothing was quiet enough.",
        "",
        HARDEST,
        _rule(HARDEST),
        *(
            f"| {organism} | {_levels(by_difficulty, behavioural=False)} | {_levels(by_difficulty, behavioural=True)} |"
            for organism, by_difficulty in curves(calibration).items()
        ),
        "",
        "## Every detector",
        "",
        "Power and false alarms at the bar that was registered. The last two columns set the bar on the fresh clean models,",
        "so that at most 5 % or 1 % of them are flagged: what the score could do. Fewer than 20 or 100 clean models cannot hold",
        "such a rate.",
        "",
        HEAD,
        _rule(HEAD),
        *(_row(cell) for cell in sorted(calibration.cells, key=_order)),
        "",
        "## Joint misses",
        "",
        "The share of planted models that every layer of a set misses, beside the product of the layers' own miss rates. Where "
        "the first is larger, the holes line up.",
        "",
        JOINT,
        _rule(JOINT),
        *(
            f"| {j.failure_mode} | {' + '.join(j.layers)} | {_said(j.missed)} | {j.product:.2f} |"
            for j in sorted(calibration.joint, key=lambda j: (j.failure_mode, len(j.layers), j.layers))
        ),
        "",
        "## Coverage",
        "",
        "Failure modes that some instrument reaches; for all others no instrument has a way of looking.",
        "",
        *_coverage(cells),
    ]
    if calibration.failed:
        lines += ["", "## Plants that did not take", "", *(f"- {reason}" for reason in calibration.failed)]
    return "\n".join(lines) + "\n"


def _row(cell: PowerCell) -> str:
    return (
        f"| {cell.failure_mode} | {cell.organism} | {cell.difficulty} | {cell.instrument} {cell.version} ({cell.family}) | "
        f"`{cell.measurement}` {_beyond(cell)}{f' on {cell.data}' if cell.data else ''} | {_said(cell.power)} | "
        f"{_said(cell.false_alarms_twin)} | "
        f"{_said(cell.false_alarms_decoy)} | {_said(cell.auroc)} | {_said(cell.power_at_5_percent)} | "
        f"{_said(cell.power_at_1_percent)} |"
    )


def _best(cells: Sequence[PowerCell], *, behavioural: bool) -> str:
    cell = best(cells, behavioural=behavioural)
    if cell:
        return f"{cell.instrument} `{cell.measurement}` | {_said(cell.power)}"
    return "none was quiet enough | -" if any((c.family == "behavioural") == behavioural for c in cells) else "none was tried | -"


def _levels(by_difficulty: Mapping[str, Sequence[PowerCell]], *, behavioural: bool) -> str:
    """The difficulties at which the best detector finds most plants, and those at which it does not."""
    found, missed = [], []
    for difficulty, cells in by_difficulty.items():
        if any((cell.family == "behavioural") == behavioural for cell in cells):
            cell = best(cells, behavioural=behavioural)
            enough = cell is not None and isinstance(cell.power, Measured) and cell.power.value >= FOUND
            (found if enough else missed).append(difficulty)
    if not found + missed:
        return "none was tried | -"
    return f"{'; '.join(found) or 'none'} | {'; '.join(missed) or 'none'}"


def _beyond(cell: PowerCell) -> str:
    return "" if cell.threshold is None else f"{'>' if cell.flaw_is == 'high' else '<'} {short(cell.threshold)}"


def _said(measurement: Measurement | None) -> str:
    if not isinstance(measurement, Measured):
        return "not measured"
    return f"{measurement.value:.2f} ({measurement.interval.low:.2f}-{measurement.interval.high:.2f}, n {measurement.n})"


def _coverage(cells: Sequence[CoverageCell]) -> list[str]:
    """A line per failure mode: what was measured, and what was not."""
    lines = ["| failure mode | measured power (lower bound) | reached, power not measured |", "|---|---|---|"]
    blind = []
    for mode in dict.fromkeys(cell.failure_mode for cell in cells):
        its = [cell for cell in cells if cell.failure_mode == mode]
        measured = [
            f"{c.instrument} {c.best.power.interval.low:.2f}" for c in its if c.best and isinstance(c.best.power, Measured)
        ]
        open_ = [c.instrument for c in its if c.state == "not-measured"]
        if measured or open_:
            lines.append(f"| {mode} | {', '.join(measured) or 'none'} | {', '.join(open_) or 'none'} |")
        else:
            blind.append(mode)
    return [*lines, "", f"Cannot be reached by any instrument: {', '.join(blind) or 'none'}."]


def _order(cell: PowerCell) -> tuple[str, ...]:
    harder = "" if cell.difficulty == "default" else cell.difficulty
    return cell.failure_mode, cell.organism, harder, cell.family, cell.instrument


def _rule(head: str) -> str:
    return "|" + "---|" * (head.count("|") - 1)


def _packages(calibration: Calibration) -> str:
    return ", ".join(f"{name} {version}" for name, version in calibration.packages.items())
