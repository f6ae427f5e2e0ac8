"""Signals that ask for the end, turned into an exception at a safe point."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mfas_optuna.errors import Interrupted


class Interrupts:
    """Turns SIGINT and SIGTERM into `Interrupted`, at once where that is safe and else at the next safe point.

    A second signal ends the process the way it would without this class.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_immediate = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        for each in self._SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self._is_immediate:
            raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted when a signal has come."""
        if self._received is not None:
            raise Interrupted(self._received)

    @contextlib.contextmanager
    def immediate(self, value: bool = True) -> Iterator[None]:
        """Within, raise at the very moment a signal comes; with False, put it off again."""
        self.check()
        before, self._is_immediate = self._is_immediate, value
        try:
            yield
        finally:
            self._is_immediate = before
        if before:
            self.check()  # One that came meanwhile was put off until now.
