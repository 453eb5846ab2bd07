"""A report that a person can read, from stored evidence only: one self-contained HTML file, or Markdown."""

from auditgap.report.audit import Audit
from auditgap.report.feasibility import feasibility_card, read_bench, render_card
from auditgap.report.figures import figure_svg, standalone
from auditgap.report.html import render_html, render_release_html
from auditgap.report.markdown import render_markdown
from auditgap.report.power import render_power
from auditgap.report.power_figure import power_svg
from auditgap.report.release import Given, Release
from auditgap.report.release_markdown import render_release_markdown
from auditgap.report.result import render_result

__all__ = [
    "Audit",
    "Given",
    "Release",
    "feasibility_card",
    "figure_svg",
    "power_svg",
    "read_bench",
    "render_card",
    "render_html",
    "render_markdown",
    "render_power",
    "render_release_html",
    "render_release_markdown",
    "render_result",
    "standalone",
]
