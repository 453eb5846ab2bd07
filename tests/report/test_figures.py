"""Figures as SVG: the data is drawn where it belongs, the same every time, and labels stay text."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.records import Curve, Grid
from auditgap.report import figure_svg
from auditgap.report.figures import describe


def curve(**changes: object) -> Curve:
    base = Curve(name="c", title="A curve", x_label="layer", y_label="auroc", x=(0.0, 1.0, 2.0, 3.0), y=(0.5, 0.6, 0.9, 0.8))
    return base.model_copy(update=changes)


def grid(**changes: object) -> Grid:
    base = Grid(
        name="g",
        title="A grid",
        x_label="position",
        y_label="layer",
        columns=("a", "b", "c"),
        rows=("0", "1"),
        values=((0.1, -0.2, 0.3), (0.0, 0.95, -0.1)),
    )
    return base.model_copy(update=changes)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def measured_line(svg: str) -> list[tuple[float, float]]:
    """Points of the thick line: the measured one."""
    path = next(p for p in ET.fromstring(svg).iter("path") if "stroke-width: 1.6" in p.get("style", ""))
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", ""))]


# Planted truth found


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30, unique=True))
@settings(max_examples=15, deadline=None)
def test_drawn_heights_are_the_values_up_to_scale(values: list[float]) -> None:
    svg = figure_svg(curve(x=tuple(float(i) for i in range(len(values))), y=tuple(values)))
    heights = [-y for _, y in measured_line(svg)]
    if len(heights) == len(values):  # matplotlib may merge points that lie on one straight line
        span, drawn_span = max(values) - min(values), max(heights) - min(heights)
        for value, height in zip(values, heights, strict=True):
            assert (value - min(values)) / span == pytest.approx((height - min(heights)) / drawn_span, abs=2e-3)


def test_band_and_reference_are_drawn_and_named() -> None:
    plain, full = figure_svg(curve()), figure_svg(curve(low=(0.4,) * 4, high=(0.95,) * 4, reference=(0.5,) * 4))
    assert {"interval", "reference", "measured"} <= set(texts(full))
    assert "fill-opacity: 0.22" in full and "stroke-dasharray" in full
    assert "fill-opacity: 0.22" not in plain and "stroke-dasharray" not in plain


def test_a_small_grid_prints_its_values() -> None:
    assert {"0.10", "-0.20", "0.30", "0.95"} <= set(texts(figure_svg(grid())))


def test_a_large_grid_is_a_picture_inside_the_file() -> None:
    side = tuple(str(i) for i in range(60))
    svg = figure_svg(grid(columns=side, rows=side, values=tuple(tuple(i * j / 3600 for j in range(60)) for i in range(60))))
    images = list(ET.fromstring(svg).iter("image"))
    assert images and all(i.get("href", "").startswith("data:image/png;base64,") for i in images)
    assert len(svg) < 60_000


def test_the_description_names_the_extremes() -> None:
    assert describe(curve()) == "A curve: auroc against layer, 4 points, lowest 0.5 at 0, highest 0.9 at 2."
    assert describe(grid()) == "A grid: heat map of layer by position, 6 cells, lowest -0.2 at 0, b, highest 0.95 at 1, b."
    assert 'role="img"' in figure_svg(curve()) and "highest 0.9 at 2." in figure_svg(curve())


# Negative control silent


@pytest.mark.parametrize("figure", [curve(low=(0.4,) * 4, high=(1.0,) * 4, reference=(0.5,) * 4), grid()])
def test_nothing_points_outside(figure: Curve | Grid) -> None:
    svg = figure_svg(figure)
    assert "http" not in svg and "<!DOCTYPE" not in svg and "<style" not in svg and "<metadata" not in svg
    assert all(target.startswith("#figure-") for target in re.findall(r"url\(([^)]*)\)", svg))


HOSTILE = "</text><script>alert(1)</script> $\\frac{1$ $x$ {{7*7}} \u202e\x00\n漢字"


def test_hostile_labels_stay_text_and_are_never_mathematics() -> None:
    for svg in (
        figure_svg(curve(x_label=HOSTILE, y_label=HOSTILE, title=HOSTILE)),
        figure_svg(grid(columns=(HOSTILE, "b", "c"), rows=(HOSTILE, "1"), x_label=HOSTILE, title=HOSTILE)),
    ):
        root = ET.fromstring(svg)
        assert {e.tag for e in root.iter()} <= {"svg", "g", "defs", "path", "use", "text", "clipPath", "rect", "image", "tspan"}
        assert "\u202e" not in svg and "<script" not in svg
        assert "$\\frac{1$ $x$ {{7*7}}" in "".join(texts(svg))


# Invariance


def test_the_same_figure_gives_the_same_bytes_in_this_process_and_another() -> None:
    figure = curve(low=(0.4,) * 4, high=(0.95,) * 4)
    script = (
        "import sys; from auditgap.records import Curve; from auditgap.report import figure_svg; "
        "sys.stdout.write(figure_svg(Curve.model_validate_json(sys.stdin.read())))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], input=figure.model_dump_json(), capture_output=True, text=True, check=True
    )
    assert figure_svg(figure) == figure_svg(figure) == other.stdout


def test_settings_of_the_process_neither_leak_in_nor_out() -> None:
    import matplotlib as mpl

    before = figure_svg(curve())
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "text.usetex": False, "axes.facecolor": "red"}):
        assert figure_svg(curve()) == before
        assert mpl.rcParams["font.size"] == 30


def test_many_threads_draw_the_same() -> None:
    figures = [curve(name=str(i)) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(figure_svg, figures))) == 1


def test_prefixes_keep_the_ids_of_two_figures_apart() -> None:
    one, two = figure_svg(curve(), prefix="E1-f1"), figure_svg(curve(), prefix="E2-f1")
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    assert one.replace("E1-f1", "E2-f1") == two


def test_pyplot_is_never_imported() -> None:
    script = "import sys; import auditgap.report; assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# Bad input


@pytest.mark.parametrize(
    "figure",
    [
        curve(y=()),
        curve(y=(0.1, 0.2)),
        curve(low=(0.1, 0.2), high=(0.3, 0.4)),
        curve(low=(0.1,) * 4),
        curve(reference=(0.5,)),
        grid(values=()),
        grid(columns=()),
        grid(rows=("0",)),
        grid(values=((0.1, 0.2, 0.3), (0.1,))),
    ],
)
def test_columns_of_different_length_are_refused(figure: Curve | Grid) -> None:
    with pytest.raises(UsageError, match=f"figure '{figure.name}': expected .* got .*; correct the instrument"):
        figure_svg(figure)


def test_one_point_is_drawn_without_complaint() -> None:
    assert "<svg" in figure_svg(curve(x=(3.0,), y=(0.5,), low=(0.4,), high=(0.6,), reference=(0.5,)))
    assert "<svg" in figure_svg(grid(columns=("a",), rows=("0",), values=((0.0,),)))
