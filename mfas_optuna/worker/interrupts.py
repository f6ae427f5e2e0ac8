"""Signals that ask for the end, turned into an exception at a safe point."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mfas_optuna.errors import Interrupted


class Interrupts:
    """Turns SIGINT and SIGTERM into `Interrupted`, at once where that is safe and else at the next safe point.

    A second signal ends the process the way it would without this class. SIGTERMs within two seconds are one: a
    scheduler sends it to every process of a job, and the supervisor passes its own on.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)
    _SAME_S = 2.0

    def __init__(self) -> None:
        self._received: int | None = None
        self._received_at = 0.0
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
        if self._received is not None:
            is_same = self._received == number and time.monotonic() - self._received_at < self._SAME_S
            if not is_same:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self._received, self._received_at = number, time.monotonic()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if number != signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
