"""Time that passes only when someone waits, so that an hour of hanging is tested in no time."""

__all__ = ["Clock"]


class Clock:
    """Seconds since the run began."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        """Seconds since the run began."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds
