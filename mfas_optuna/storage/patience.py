"""Waiting for a database that is away: which errors are worth it, how often to try, and for how long."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

PATIENCE_S = 180.0
"""How long a worker waits for its database at least."""
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_SLICE_S = 0.2


def is_away(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that the database could not be reached just then.

    A lost or refused connection and a SQLite file that stayed locked do; what is wrong with a statement or with the
    database itself does not.
    """
    while error is not None:
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            if type(error.orig).__module__.startswith("sqlite3"):
                return "database is locked" in str(error.orig) or "database table is locked" in str(error.orig)
            return error.connection_invalidated or isinstance(
                error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
            )
        if isinstance(error, sqlalchemy.exc.PendingRollbackError):  # What follows a lost connection in a transaction.
            return True
        error = error.__cause__
    return False


def _first_line(error: BaseException) -> str:
    """Return what the driver said, which never holds the password."""
    while not isinstance(error, sqlalchemy.exc.DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class Patience:
    """Repeats what fails while the database is away, with growing pauses, and says once that it waits.

    Attributes:
        n_waits: How often it had to wait: what was then repeated may have been done twice.
    """

    def __init__(self, limit_s: float = 0.0, check: Callable[[], None] = lambda: None) -> None:
        """Set the limit.

        Args:
            limit_s: How long to wait at most for one thing; 0: not at all.
            check: Called while waiting; what it raises ends the waiting.
        """
        self._limit_s = limit_s
        self._check = check
        self._within = threading.local()
        self.n_waits = 0

    def run(self, work: Callable[[], _Result], may_come: Callable[[BaseException], bool] = is_away) -> _Result:
        """Return what `work` returns, calling it again while the database is away.

        It must be safe to do twice: a lost connection does not tell whether what was sent was done. Within work of
        this kind, the outermost is repeated as a whole.

        Args:
            work: What to do.
            may_come: Which errors are worth waiting.
        """
        if self._limit_s <= 0 or getattr(self._within, "is_running", False):
            return work()
        self._within.is_running = True
        try:
            return self._run(work, may_come)
        finally:
            self._within.is_running = False

    def _run(self, work: Callable[[], _Result], may_come: Callable[[BaseException], bool]) -> _Result:
        pause = _FIRST_WAIT_S
        began: float | None = None
        while True:
            try:
                result = work()
            except Exception as error:
                if not may_come(error):
                    raise
                now = time.monotonic()
                if began is None:
                    began = now
                    self.n_waits += 1
                    _log.warning(
                        "The study database cannot be reached; waiting up to %.0f s for it. (%s)",
                        self._limit_s,
                        _first_line(error),
                    )
                if now - began > self._limit_s:
                    raise
            else:
                if began is not None:
                    _log.warning("The study database is back after %.1f s; going on.", time.monotonic() - began)
                return result
            self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_WAIT_S)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, _SLICE_S))
