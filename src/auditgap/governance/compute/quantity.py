"""Amounts as people write them: `14.8T`, `1.4e25`, `989 TFLOP/s`, `50 %`, or a range of low, mid and high.

Amounts in a file are read into an `Estimate`; a plain number is an estimate whose three values are the same.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from auditgap.records import Number, Record

__all__ = [
    "Estimate",
    "Flop",
    "Hours",
    "Passes",
    "Peak",
    "PlainFlop",
    "PlainScore",
    "Score",
    "Share",
    "Tokens",
    "Units",
    "Weights",
    "amount",
    "plus",
    "show",
    "times",
]

Unit = Literal["tokens", "parameters", "FLOP", "FLOP/s", "hours", "share", "score", "passes", "units"]

_SUFFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "b": 1e9, "B": 1e9, "G": 1e9, "t": 1e12, "T": 1e12, "P": 1e15, "%": 0.01}
_EXAMPLE: dict[Unit, str] = {
    "tokens": "14.8T or 1.48e13",
    "parameters": "7B or 7e9",
    "FLOP": "1.4e25",
    "FLOP/s": "989T or 9.89e14",
    "hours": "370k or 370000",
    "share": "0.4 or 40 %",
    "score": "0.71 or 71 %",
    "passes": "1 or 2.5",
    "units": "2048",
}
_WORDS: dict[Unit, tuple[str, ...]] = {
    "tokens": ("", "tokens", "token"),
    "parameters": ("", "parameters", "params"),
    "FLOP": ("", "FLOP", "FLOPs"),
    "FLOP/s": ("", "FLOP/s", "FLOPS"),
    "hours": ("", "hours", "h"),
    "share": (),
    "score": (),
    "passes": ("", "epochs", "passes"),
    "units": (),
}
LARGEST = 1e40
"""Far above any amount of the world's computing, and small enough that products stay finite."""
_DIGITS = r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)"


class Estimate(Record):
    """A quantity that is known only so well: the lowest plausible value, the best one, the highest plausible one."""

    low: Number
    mid: Number
    high: Number

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.low <= self.mid <= self.high:
            raise ValueError(f"expected 0 <= low <= mid <= high, got {self.low:g}, {self.mid:g}, {self.high:g}; sort them")
        return self

    @classmethod
    def of(cls, value: float) -> Self:
        """A value without uncertainty."""
        return cls(low=value, mid=value, high=value)


def plus(*terms: Estimate) -> Estimate:
    """The sum: of nothing, zero."""
    return Estimate(low=sum(t.low for t in terms), mid=sum(t.mid for t in terms), high=sum(t.high for t in terms))


def times(*factors: Estimate) -> Estimate:
    """The product: of nothing, one. All factors are at least zero, so lows multiply to the low."""
    low = mid = high = 1.0
    for f in factors:
        low, mid, high = low * f.low, mid * f.mid, high * f.high
    return Estimate(low=low, mid=mid, high=high)


def show(value: float) -> str:
    """Three significant digits: `1.08e23`."""
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{digits}e{int(exponent)}" if value else "0"


def amount(value: object, unit: Unit) -> float:
    """One number as a person writes it.

    Raises:
        ValueError: it is not a number of that unit; the message shows one that is.
    """
    expected = f"expected a number of {unit}, such as {_EXAMPLE[unit]}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{expected}; write one number, or {{low, mid, high}}")
    words = "|".join(_WORDS[unit])
    found = re.fullmatch(rf"{_DIGITS}\s*([{''.join(_SUFFIX)}]?)\s*(?:{words})", str(value).strip())
    if found is None:
        unit_names = f", and no unit but {_WORDS[unit][1]}" if words else ""
        raise ValueError(f"{expected}; write digits, a decimal point, at most one of k, M, B, T, P{unit_names}")
    digits, suffix = found.groups()
    number = float(digits.replace(",", "").replace("_", "")) * _SUFFIX[suffix]
    if unit == "share" and not 0 < number <= 1:
        raise ValueError(f"{expected}; a share lies above 0 and is at most 1")
    if number > LARGEST:
        raise ValueError(f"{expected}; this one is too large to be one")
    return number


def _range(unit: Unit) -> BeforeValidator:
    """Reads one amount, or a mapping of low, mid and high."""

    def read(value: object) -> object:
        if isinstance(value, Estimate):
            return value
        if isinstance(value, Mapping):
            if set(value) != {"low", "mid", "high"}:
                raise ValueError(f"expected low, mid and high, got {', '.join(map(str, value)) or 'nothing'}; give all three")
            return {key: amount(inner, unit) for key, inner in value.items()}
        return dict.fromkeys(("low", "mid", "high"), amount(value, unit))

    return BeforeValidator(read)


Tokens = Annotated[Estimate, _range("tokens")]
Weights = Annotated[Estimate, _range("parameters")]
Flop = Annotated[Estimate, _range("FLOP")]
Peak = Annotated[Estimate, _range("FLOP/s")]
Hours = Annotated[Estimate, _range("hours")]
Share = Annotated[Estimate, _range("share")]
Passes = Annotated[Estimate, _range("passes")]
Score = Annotated[Estimate, _range("score")]
Units = Annotated[Estimate, _range("units")]
PlainScore = Annotated[float, BeforeValidator(lambda value: amount(value, "score"))]
"""One score, without a range."""
PlainFlop = Annotated[float, BeforeValidator(lambda value: amount(value, "FLOP"))]
"""One number of FLOP, without a range."""
