"""A behaviour before and after a release as inline SVG: both rates with their intervals, and the shift against its margin."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.records.parity import BehaviourCount, Equivalence
from auditgap.report.figures import INK, LINE, drawn
from auditgap.report.numbers import short

__all__ = ["check_shift", "describe_shift", "shift_svg"]


def shift_svg(test: Equivalence, *, prefix: str) -> str:
    """One `<svg>`: above, the rates before and after; below, the shift. The band is the margin that was registered.

    Raises:
        UsageError: as `check_shift`.
    """
    check_shift(test)
    return drawn(lambda: _canvas(test), prefix=prefix, label=lambda: describe_shift(test))


def check_shift(test: Equivalence) -> None:
    """Counts and shift agree with each other.

    Raises:
        UsageError: they do not, so a figure would show something else than the test.
    """
    for count in (test.before, test.after):
        if count.hits > count.n:
            raise UsageError(f"'{test.behaviour}': expected at most n = {count.n} hits, got {count.hits}; judge parity again")
    if abs((shift := _rate(test.after) - _rate(test.before)) - test.shift) > 1e-6:
        raise UsageError(
            f"'{test.behaviour}': expected a shift of {shift:.6f} from the counts, got {test.shift:.6f}; judge parity again"
        )


def describe_shift(test: Equivalence) -> str:
    """The figure in words."""
    ends = f"{short(test.interval.low)} to {short(test.interval.high)}, {short(100 * test.interval.level)} %"
    verdict = "within the margin" if test.verdict == "equivalent" else "not shown to be within the margin"
    return (
        f"{test.behaviour}: {_counted(test.before)} before, {_counted(test.after)} after; shift {short(test.shift)} ({ends}), "
        f"margin {short(test.margin)}: {verdict}."
    )


def _counted(count: BehaviourCount) -> str:
    rate = f"{short(_rate(count))} ({short(count.rate.low)} to {short(count.rate.high)})"
    return f"{rate}, {count.hits:,} of {count.n:,}"


def _rate(count: BehaviourCount) -> float:
    return count.hits / count.n


def _canvas(test: Equivalence) -> Canvas:
    before, after = _rate(test.before), _rate(test.after)
    canvas = Canvas(figsize=(4.7, 2.4), layout="constrained")
    rates, shift = canvas.subplots(2, 1, height_ratios=(2, 1))
    rates.axvspan(max(0.0, before - test.margin), min(1.0, before + test.margin), color=INK, alpha=0.08, linewidth=0)
    _interval(rates, 1, before, test.before.rate)
    _interval(rates, 0, after, test.after.rate)
    rates.set_yticks((1, 0), ("before", "after"))
    rates.set_ylim(-0.6, 1.6)
    rates.set_xlabel("rate")
    shift.axvspan(-test.margin, test.margin, color=INK, alpha=0.08, linewidth=0)
    shift.axvline(0, color=INK, alpha=0.65, linestyle=(0, (4, 3)), linewidth=1)
    _interval(shift, 0, test.shift, test.interval)
    shift.set_yticks((0,), ("shift",))
    shift.set_ylim(-0.6, 0.6)
    shift.set_xlabel("after minus before; the band is the margin")
    return canvas


def _interval(axes: Axes, y: float, value: float, interval: Interval) -> None:
    axes.plot((interval.low, interval.high), (y, y), color=LINE, linewidth=3, alpha=0.45, solid_capstyle="butt")
    axes.plot((value,), (y,), color=LINE, marker="o", markersize=4, linestyle="none")
