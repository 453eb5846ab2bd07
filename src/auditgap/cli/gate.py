"""`auditgap gate`: stored evidence against a policy; the exit code is the decision."""

import click

from auditgap.cli.options import as_json, json_flag, store
from auditgap.cli.render import print_outcome

__all__ = ["command"]


@click.command("gate")
@click.option("--policy", required=True, type=click.Path(dir_okay=False), help="Policy file (YAML).")
@click.option("--subject", help="Subject digest or prefix, where the store holds several.")
@store
@json_flag
def command(policy: str, subject: str | None, store: str, as_json_: bool) -> None:
    """Decide by a policy and sign the decision with the gate key. Default deny: exit 0 only if every criterion is met."""
    from auditgap.judge import gate

    outcome = gate(store, policy, subject=subject)
    if as_json_:
        as_json(outcome.document())
    else:
        print_outcome(outcome)
    raise click.exceptions.Exit(outcome.exit_code)
