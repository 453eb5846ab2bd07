"""How fast, against the bare forward pass and against named peers: `python -m bench`. No test depends on it."""
