"""How long work tells what it is doing: library code calls a `Progress`, only the command line shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by work that takes long; must return at once."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note that `done` of `total` parts of `what` are finished."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore the news: the default of every function that takes a `Progress`."""
