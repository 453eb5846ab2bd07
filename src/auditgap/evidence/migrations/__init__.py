"""Alembic's history of the tables; run by `Store.open`, never by hand."""

__all__: list[str] = []
