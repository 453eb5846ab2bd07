"""Numbers, times and untrusted text as a reader sees them."""

import datetime as dt
import re

__all__ = ["duration", "full", "short", "utc", "visible"]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def short(value: float) -> str:
    """A number in at most three significant digits, whole numbers in full.

    A value that is shorter than that is printed as it is, so `0.95` is exactly 0.95 while `0.950` was rounded.
    """
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    shortest = repr(value)
    if "e" not in shortest and len(shortest.replace("-", "").replace(".", "").lstrip("0")) <= 3:
        return shortest
    if 1e-3 <= abs(value) < 1e6:
        return _three_digits(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.2e}")
    exponent = int(f"{rounded:e}".split("e")[1])
    return f"{rounded:,.{max(0, 2 - exponent)}f}"


def full(value: float) -> str:
    """All digits of a number, as signed."""
    return repr(value)


def utc(moment: dt.datetime) -> str:
    """`2026-11-21 08:00:05 UTC`."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(span: dt.timedelta) -> str:
    """A span of time in its largest whole unit: `42 s`, `12 min`, `3 h`, `5 days`."""
    seconds = abs(round(span.total_seconds()))
    for unit, size in (("days", 172_800), ("h", 7_200), ("min", 120)):
        if seconds >= size:
            return f"{seconds // {'days': 86_400, 'h': 3_600, 'min': 60}[unit]} {unit}"
    return f"{seconds} s"


def visible(text: str) -> str:
    """Text with every control, zero-width and direction-changing character spelled out, as `⟨U+202E⟩`.

    Model output is untrusted: such characters can hide words from a reader or change their order. Line feeds and tabs stay.
    """
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
