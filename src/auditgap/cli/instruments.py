"""`auditgap instruments`: what can be measured, with which settings and blind to what."""

import click

from auditgap.cli.options import as_json, json_flag, table

__all__ = ["command"]


@click.command("instruments")
@click.argument("name", required=False)
@json_flag
def command(name: str | None, as_json_: bool) -> None:
    """List the instruments, or show one: hypothesis, settings, controls, blind spots, citation."""
    from auditgap.instruments import find, registered

    if name is None:
        cards = [cls.card for cls in registered().values()]
        if as_json_:
            as_json(cards)
        else:
            table(
                "instruments",
                ("name", "family", "needs", "data", "supported means"),
                [(c.name, c.family, c.needs, c.data, c.hypothesis) for c in cards],
            )
        return
    instrument = find(name)
    if as_json_:
        as_json({"card": instrument.card, "settings": instrument.model_json_schema()})
        return
    card = instrument.card
    click.echo(
        f"{card.name} {card.version} ({card.family}, needs {card.needs}, data: {card.data})\n{card.hypothesis}\n{card.citation}\n"
    )
    table(
        "settings",
        ("key", "default", "meaning"),
        [(key, repr(field.default), field.description or "") for key, field in instrument.model_fields.items()],
    )
    table("controls", ("name",), [(control,) for control in card.controls])
    table("blind spots", ("it cannot see",), [(spot,) for spot in card.blind_spots])
