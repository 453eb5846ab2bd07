"""A report that a person can read, from stored evidence only: one self-contained HTML file, or Markdown."""

from auditgap.report.audit import Audit
from auditgap.report.figures import figure_svg
from auditgap.report.html import render_html
from auditgap.report.markdown import render_markdown
from auditgap.report.power import render_power
from auditgap.report.result import render_result

__all__ = ["Audit", "figure_svg", "render_html", "render_markdown", "render_power", "render_result"]
