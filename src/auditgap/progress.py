"""How long work tells how far it is."""

from collections.abc import Callable

__all__ = ["Progress", "quiet"]

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called now and then on long work."""


def quiet(label: str, done: int, total: int) -> None:
    """Progress that says nothing."""
