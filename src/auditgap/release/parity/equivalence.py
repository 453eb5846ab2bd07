"""Whether a behaviour is as frequent after a change as before, within a margin that was set beforehand.

1. Each rate has its Clopper-Pearson interval at level 1 - 2 alpha.
2. The interval of the shift (after minus before) comes from both by square-and-add (`auditgap.stats.contrast`).
3. Equivalent if the whole interval lies strictly within the margin: two one-sided tests at alpha.

Never "p > 0.05": few trials make the interval wide, and then nothing is shown. Enumerated for 50 to 400 trials a side and margins
of 0.05 to 0.2, a shift of exactly the margin is called equivalent in at most 4.8 % of cases at alpha 0.05; the same with Wilson's
intervals reached 5.9 %.

Source: D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657-680 (two one-sided tests); R. G. Newcombe, Statistics in
Medicine 17 (1998) 873-890 (square-and-add) (unverified).
"""

from auditgap.errors import UsageError
from auditgap.records import Digest
from auditgap.records.parity import BehaviourCount, Equivalence
from auditgap.stats import clopper_pearson, contrast

__all__ = ["equivalence"]


def equivalence(
    behaviour: str,
    *,
    before: tuple[int, int],
    after: tuple[int, int],
    margin: float,
    alpha: float = 0.05,
    evidence: tuple[Digest, ...] = (),
) -> Equivalence:
    """The shift of a rate between two releases, from (hits, trials) of each, and whether it is shown to be within the margin.

    Raises:
        UsageError: no trials, more hits than trials, a margin outside (0, 1), or an alpha outside (0, 0.5).
    """
    if not 0.0 < margin < 1.0 or not 0.0 < alpha < 0.5:
        raise UsageError(f"expected a margin in (0, 1) and an alpha in (0, 0.5), got {margin} and {alpha}")
    level = 1.0 - 2.0 * alpha
    old, new = (BehaviourCount(hits=hits, n=n, rate=clopper_pearson(hits, n, level=level)) for hits, n in (before, after))
    shift, interval = contrast([after, before], [1.0, -1.0], level=level)
    return Equivalence(
        behaviour=behaviour,
        margin=margin,
        before=old,
        after=new,
        shift=shift,
        interval=interval,
        verdict="equivalent" if -margin < interval.low and interval.high < margin else "not-shown",
        evidence=evidence,
    )
