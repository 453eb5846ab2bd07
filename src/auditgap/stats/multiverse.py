"""Would another reasonable analysis have concluded otherwise?"""

from collections.abc import Mapping

from auditgap.errors import UsageError
from auditgap.records import Interval, Measured

__all__ = ["flip_rate"]


def flip_rate(conclusions: Mapping[str, bool]) -> Measured:
    """Share of pairs of specifications whose conclusions differ: 0 if all agree, at most about one half.

    `conclusions` maps each specification that was really run to whether it supports the hypothesis.

    Raises:
        UsageError: fewer than two specifications.

    Source: S. Steegen et al., Perspectives on Psychological Science 11 (2016) 702-712; the share of pairs is ours.
    """
    n, n_true = len(conclusions), sum(conclusions.values())
    if n < 2:
        raise UsageError(f"expected at least 2 specifications to compare, got {n}")
    share = n_true * (n - n_true) / (n * (n - 1) / 2)
    return Measured(
        name="flip_rate",
        value=share,
        unit="rate",
        n=n,
        interval=Interval.exact(share),
        about=f"Share of pairs of specifications that conclude differently; {n_true} of {n} support: {'; '.join(conclusions)}.",
    )
