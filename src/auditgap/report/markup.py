"""Markdown from text that nobody vouches for: headings, tables, code, and words that stay words."""

import re
from collections.abc import Iterable, Iterator

from auditgap.report.numbers import visible

__all__ = ["code", "fenced", "heading", "table", "text"]


def heading(depth: int, words: str) -> tuple[str, str, str]:
    """A heading with the blank lines around it."""
    return "", f"{'#' * depth} {words}", ""


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A table; cells must already be escaped."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def text(words: str) -> str:
    """Untrusted text on one line, with every character that Markdown would read spelled out."""
    return (
        re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(visible(words).split())).replace("://", ":\\//").replace("&", "&amp;")
    )


def code(words: str) -> str:
    """Text as inline code, or escaped where that cannot be."""
    plain = " ".join(visible(words).split())
    return f"`{plain}`" if not set("`|") & set(plain) else text(plain)


def fenced(words: str) -> str:
    """Untrusted text as a block that nothing in it can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", words)), default=0))
    return f"{fence}text\n{visible(words)}\n{fence}"
