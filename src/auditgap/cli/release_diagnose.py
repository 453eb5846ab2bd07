"""`auditgap release diagnose`: whether unsafe actions get further in a release than in the one before."""

from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.records import Interval
    from auditgap.release.diagnostics import AdherenceShift, ClusterShift, Match, ScriptedMove

__all__ = ["diagnose"]

_file = click.Path(dir_okay=False)
_share = click.FloatRange(0, 1, min_open=True, max_open=True)
EXIT_CODES = {"no shift": 0, "moved": 0, "alarm": 1, "inconclusive": 3}


@click.command("diagnose")
@click.argument("before", type=_file)
@click.argument("after", type=_file)
@click.option("--alpha", type=_share, default=0.05, show_default=True, help="Chance of a false alarm.")
@click.option("--margin", type=_share, default=0.1, show_default=True, help="Shift in rate that counts as none.")
@click.option("--match", type=click.Choice(["stimulus", "tool"]), default="stimulus", show_default=True, help="Of sessions.")
@click.option("--seed", default=0, show_default=True, help="Of the permutations.")
@json_flag
def diagnose(before: str, after: str, alpha: float, margin: float, match: "Match", seed: int, as_json_: bool) -> None:
    """Compare how far unsafe actions get in two releases, from two integrity runs (JSON) or two event streams (JSONL).

    Exit 0: no shift, or one to the safe side; 1: an alarm; 3: too few runs to say.
    """
    from auditgap.release.diagnostics import diagnose_files

    found = diagnose_files(before, after, alpha=alpha, margin=margin, match=match, seed=seed)
    if as_json_:
        as_json(found)
    else:
        if found.adherence:
            _show_shift(found.adherence)
        if found.scripted:
            _show_moves(found.scripted)
        if found.clusters:
            _show_clusters(found.clusters)
        click.echo("\n".join((*found.says, f"verdict: {found.verdict}")))
    raise click.exceptions.Exit(EXIT_CODES[found.verdict])


def _show_shift(shift: "AdherenceShift") -> None:
    rows = [
        (state.state, _of(state.n_before, shift.n_before, state.before), _of(state.n_after, shift.n_after, state.after))
        for state in shift.states
        if state.n_before or state.n_after
    ]
    table("how far unsafe actions got", ("state", "before", "after"), rows)
    cuts = [
        (f"at least {cut.reached}", f"{cut.shift:+.3f}", f"{cut.interval.low:+.3f} .. {cut.interval.high:+.3f}", f"{cut.p:.2g}")
        for cut in shift.cuts
    ]
    table("shift, after less before", ("reached", "shift", f"{1 - shift.alpha:.3g} interval, all at once", "p"), cuts)


def _show_moves(moves: "tuple[ScriptedMove, ...]") -> None:
    rows = [
        (
            move.case,
            *(", ".join(f"{n} {state}" for state, n in states.items()) for states in (move.before, move.after)),
            move.direction,
        )
        for move in moves
    ]
    table("scripted cases that end in other states", ("case", "before", "after", "direction"), rows)


def _show_clusters(shift: "ClusterShift") -> None:
    rows = [
        (one.category, _of(one.n_before, shift.n_before, one.before), _of(one.n_after, shift.n_after, one.after), f"{one.p:.2g}")
        for one in shift.occupancy
    ]
    table("kinds of incident", ("category", "before", "after", "p"), rows)


def _of(hits: int, n: int, interval: "Interval") -> str:
    return f"{hits} of {n} ({interval.low:.3f} .. {interval.high:.3f})"
