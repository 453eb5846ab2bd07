"""`auditgap monitor watch`: recorded traffic against the streams of an alarm policy."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, json_flag, table

if TYPE_CHECKING:
    from auditgap.alarms import Alarm, WatchResult

__all__ = ["watch"]


@click.command("watch")
@click.argument("traffic", metavar="TRAFFIC.jsonl", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--policy", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Alarm policy (YAML).")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Checkpoint: go on from it, keep it up to date.")
@click.option("--store", help="Evidence store: sign each alarm into its ledger.")
@json_flag
def watch(traffic: str, policy: Path, state: Path | None, store: str | None, as_json_: bool) -> None:
    """Hold traffic that was recorded elsewhere to the streams of a policy.

    TRAFFIC is a file of JSON lines, ours or OpenTelemetry's, or - to follow standard input. Exit 0: quiet. 1: an alarm was raised
    or stands. 2: the policy, the state or a line is not as it must be. 3: a stream never had a value.
    """
    from auditgap.alarms import load_alarm_policy, watch_traffic
    from auditgap.evidence import Store

    declared = load_alarm_policy(policy)
    with ExitStack() as stack:
        keep = stack.enter_context(Store.open(store)).add if store else None
        result = watch_traffic(declared, traffic, state=state, on_alarm=_announcing(keep, quiet=as_json_))
    as_json(result) if as_json_ else _print_streams(result)
    raise click.exceptions.Exit(result.exit_code)


def _announcing(keep: "Callable[[Alarm], object] | None", *, quiet: bool) -> "Callable[[Alarm], None]":
    def announce(alarm: "Alarm") -> None:
        if keep is not None:
            keep(alarm)
        if not quiet:
            click.echo("\n".join(_alarm_lines(alarm)))

    return announce


def _alarm_lines(alarm: "Alarm") -> list[str]:
    return [
        f"ALARM {alarm.stream} at event {alarm.at_event:,} ({alarm.where or 'fed'})",
        f"  against  {alarm.hypothesis}",
        f"  found    {alarm.statistic} {alarm.value:,.0f} >= {alarm.threshold:,.0f}; {_estimate(alarm)}",
        f"  errs     {alarm.guarantee}",
        f"  now      {alarm.response} ({alarm.owner}, within {alarm.deadline_hours:g} h)",
    ]


def _estimate(alarm: "Alarm") -> str:
    from auditgap.cli.render import measurement_row

    name, value, interval, n, _ = measurement_row(alarm.estimate)
    return f"{name} {value} ({interval}, n = {n})" if n else f"{name} {value}: {interval}"


def _print_streams(result: "WatchResult") -> None:
    from auditgap.cli.render import measurement_row

    rows = []
    for stream in result.streams:
        name, value, interval, _, _ = measurement_row(stream.estimate)
        stands = (
            "ALARMED"
            if stream.is_alarmed
            else f"{stream.n_alarms} alarms"
            if stream.n_alarms
            else "quiet"
            if stream.n
            else "BLIND"
        )
        reached = f"{stream.value:.3g} of {stream.threshold:,.0f}"
        rows.append((stream.stream, stands, str(stream.n), str(stream.n_skipped), reached, f"{name} {value} ({interval})"))
    title = f"{result.n_records:,} records under policy {result.policy[7:19]}"
    table(title, ("stream", "stands", "events", "without value", "value", "estimate"), rows)
