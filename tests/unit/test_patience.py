"""What is repeated while the database is away, what is not, and what is said meanwhile."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import optuna
import psycopg
import pytest
import sqlalchemy

from mfas_optuna.storage import Patience, is_away, opening, patience


def of_driver(kind: type[sqlalchemy.exc.DBAPIError], orig: Exception) -> sqlalchemy.exc.DBAPIError:
    return kind("SELECT 1", {}, orig)


LOST = of_driver(sqlalchemy.exc.OperationalError, psycopg.OperationalError("the connection is closed"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 1e-3)

    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", sleep)
    return now


def wrapped(error: Exception) -> optuna.exceptions.StorageInternalError:
    outer = optuna.exceptions.StorageInternalError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LOST, True),
        (wrapped(LOST), True),
        (of_driver(sqlalchemy.exc.InterfaceError, psycopg.InterfaceError("closed")), True),
        (sqlalchemy.exc.PendingRollbackError("reconnect"), True),
        (of_driver(sqlalchemy.exc.OperationalError, sqlite3.OperationalError("database is locked")), True),
        (of_driver(sqlalchemy.exc.OperationalError, sqlite3.OperationalError("no such table: x")), False),
        (of_driver(sqlalchemy.exc.IntegrityError, psycopg.errors.UniqueViolation("twice")), False),
        (wrapped(ValueError("x")), False),
        (KeyError("x"), False),
    ],
)
def test_only_lost_connections_and_locks_are_worth_waiting(error: Exception, expected: bool) -> None:
    assert is_away(error) is expected


def failing(n_times: int, error: Exception = LOST) -> Callable[[], str]:
    left = [n_times]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return work


def test_it_waits_and_says_so_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    waiter = Patience(120)
    with caplog.at_level(logging.WARNING):
        assert waiter.run(failing(12)) == "done"
    assert [record.message.split(";")[0].split(" after")[0] for record in caplog.records] == [
        "The study database cannot be reached",
        "The study database is back",
    ]
    assert waiter.n_waits == 1
    assert 5 < clock[0] < 60


def test_it_gives_up_after_its_limit_and_not_before(clock: list[float]) -> None:
    with pytest.raises(sqlalchemy.exc.OperationalError):
        Patience(120).run(failing(10**6))
    assert 120 < clock[0] < 130


def test_other_errors_and_no_patience_at_all_raise_at_once(clock: list[float]) -> None:
    with pytest.raises(KeyError):
        Patience(120).run(failing(1, KeyError("x")))
    with pytest.raises(sqlalchemy.exc.OperationalError):
        Patience().run(failing(1))
    assert clock[0] == 0


def test_a_signal_ends_the_waiting(clock: list[float]) -> None:
    def check() -> None:
        if clock[0] > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Patience(120, check).run(failing(10**6))
    assert clock[0] < 4


def test_of_nested_work_the_outermost_is_repeated(clock: list[float]) -> None:
    waiter, seen = Patience(120), []
    inner = failing(2)

    def outer() -> Any:
        seen.append("outer")
        return waiter.run(inner)

    assert waiter.run(outer) == "done"
    assert seen == ["outer"] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("consuming input failed: server closed the connection unexpectedly", True),
        ("terminating connection due to administrator command", True),
        ("connection failed: FATAL:  the database system is starting up", True),
        ("connection failed: FATAL:  the database system is shutting down", True),
        ('connection failed: FATAL:  password authentication failed for user "me"', False),
        ("connection failed: FATAL:  the database system is in recovery mode", True),
        ("connection failed: FATAL:  sorry, too many clients already", True),
        ('connection failed: FATAL:  too many connections for role "me"', True),
        ('connection failed: FATAL:  database "x" does not exist', False),
        ("connection failed: Connection refused", True),
        ('connection is bad: connection to server on socket "/x/.s" failed: No such file or directory', True),
        ("connection timeout expired", True),
        ("connection failed: received invalid response to SSL negotiation: H", False),
        ("failed to resolve host 'x': [Errno -2] Name or service not known", False),
        ("failed to resolve host 'x': [Errno -3] Temporary failure in name resolution", True),
    ],
)
def test_who_starts_waits_for_a_database_that_is_away_and_not_for_one_that_refuses_what_was_asked(
    text: str, expected: bool
) -> None:
    error = of_driver(sqlalchemy.exc.OperationalError, psycopg.OperationalError(text))
    assert opening._may_come(error) is expected


def test_the_reason_is_said_and_what_is_not_waited_for_ends_it(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    refused = of_driver(sqlalchemy.exc.OperationalError, psycopg.OperationalError("connection failed: refused\nhint"))
    wrong = of_driver(sqlalchemy.exc.OperationalError, psycopg.OperationalError("connection failed: FATAL: password"))
    errors = [wrong, refused, refused]

    def work() -> None:
        raise errors.pop()

    with caplog.at_level(logging.WARNING), pytest.raises(sqlalchemy.exc.OperationalError, match="password"):
        Patience(120).run(work, may_come=lambda error: error is refused)
    assert caplog.messages == [
        "The study database cannot be reached; waiting up to 120 s for it. (connection failed: refused)"
    ]
