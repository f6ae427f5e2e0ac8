"""Opening the study database with the settings that many writers need."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from mfas_optuna.errors import StorageError
from mfas_optuna.storage import leases
from mfas_optuna.storage.batch import BatchStorage
from mfas_optuna.storage.patience import Patience, is_away

_Result = TypeVar("_Result")

SQLITE_TIMEOUT_S = 60
CREATION_ATTEMPTS = 8
_NO_CONNECTION = ("connection failed", "connection is bad", "connection timeout", "failed to resolve", "[Errno")
"""How psycopg's errors begin when there is no connection at all; they bear no code."""
GET_DRIVER = "Run `pip install 'mfas-optuna[postgres]'`, and write postgresql+psycopg://user@host/name."
_NO_CONNECTION_YET = (
    # What the system says of a server that is stopped, restarts, or whose machine does.
    "Connection refused",
    "No such file or directory",  # The socket is there while the server runs.
    "connection timeout expired",
    "Connection timed out",
    "Connection reset by peer",
    "server closed the connection unexpectedly",
    "No route to host",
    "Network is unreachable",
    "Temporary failure in name resolution",
    # What the server says itself.
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "too many clients already",
    "too many connections for",
    "remaining connection slots are reserved",
)
POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,  # Seconds.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # Milliseconds; without it what was sent is waited for a quarter of an hour.
}


def masked(url: str) -> str:
    """Return a database URL that can be shown: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # ValueError: the port is no number.
        scheme, separator, _ = url.partition("://")
        return f"{scheme}://…" if separator else url


def open_storage(url: str, patience: Patience | None = None) -> BatchStorage:
    """Open the database, creating its tables when there are none.

    SQLite is switched to write-ahead logging (for good) with synchronous NORMAL: safe when processes are killed; a
    power cut can lose the last moments. Other databases get connections that are checked before use.

    Args:
        url: The database.
        patience: How long to wait for a database that is away, here and later; None: not at all. Here a name, user,
            password or database that the server does not know is an error at once.

    Raises:
        StorageError: The URL is not valid, its driver is missing, or the database cannot be reached or written.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}}
        _prepare_sqlite(parsed)
    else:
        arguments = {"pool_pre_ping": True}  # A connection that a restart has cut is noticed before it is used.
        arguments["connect_args"] = dict(POSTGRES_ARGUMENTS)
    storage = _with_retries(lambda: _create(url, arguments), url, patience or Patience())
    if patience is not None:
        storage.patience = patience
    if parsed.get_backend_name() == "sqlite":
        event.listen(storage.engine, "connect", _set_synchronous_normal)
        storage.engine.dispose()
    return storage


def _create(url: str, arguments: dict[str, Any]) -> BatchStorage:
    storage = BatchStorage(url, engine_kwargs=arguments)
    leases.metadata.create_all(storage.engine)
    return storage


def check_exists(url: str) -> None:
    """Make sure that a database file is there, for commands that only read.

    Raises:
        StorageError: It is not, or the URL is not valid.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
        raise StorageError(f"{parsed.database}: there is no study database. Start one with `mfas-optuna search`.")


def parse_url(url: str) -> URL:
    """Return a database URL in its parts.

    Raises:
        StorageError: It is not valid, not of SQLite or PostgreSQL, or its driver is missing.
    """
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (NoSuchModuleError, ImportError) as error:
        raise StorageError(f"{masked(url)}: no driver for this database: {error}. {GET_DRIVER}") from error
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            f"{masked(url)}: not a database URL. Write sqlite:///path/to/file.db or "
            "postgresql+psycopg://user@host/name."
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(
            f"{masked(url)}: expected SQLite or PostgreSQL, found {parsed.get_backend_name()}. Write "
            "sqlite:///path/to/file.db or postgresql+psycopg://user@host/name."
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StorageError(f"{masked(url)}: a study needs a database file. Write sqlite:///path/to/file.db.")
    return parsed


def _prepare_sqlite(parsed: URL) -> None:
    path = Path(str(parsed.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _switch_to_wal(path)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"{path}: the study database cannot be opened for writing: {error}. "
            "Check the folder's permissions and free space, or name another with --storage."
        ) from error


def _switch_to_wal(path: Path) -> None:
    deadline = time.monotonic() + SQLITE_TIMEOUT_S
    while True:
        connection = sqlite3.connect(path, timeout=SQLITE_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")  # Finds out whether it can be written.
            connection.rollback()
            return
        except sqlite3.OperationalError as error:
            # Two processes that switch a new database at once: one is refused without the time-out's being waited for.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def _set_synchronous_normal(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _with_retries(create: Callable[[], _Result], url: str, patience: Patience) -> _Result:
    """Return what `create` returns; wait for a database that is away, but not for one that refuses what was asked.

    Raises:
        StorageError: The database cannot be reached or used.
    """
    try:
        return patience.run(lambda: _through_races(create), may_come=_may_come)
    except (ImportError, ModuleNotFoundError) as error:
        raise StorageError(f"{masked(url)}: the database's driver is missing: {error}. {GET_DRIVER}") from error
    except RuntimeError as error:  # Optuna: the tables are of another version.
        raise StorageError(f"{masked(url)}: {error}") from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        text = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        raise StorageError(
            f"{masked(url)}: the study database cannot be reached: {text}. "
            "Is it running, and are the host, port, user and password right?"
        ) from error


def _may_come(error: BaseException) -> bool:
    """Return whether a database that cannot be opened may be there soon: it is away, starts, or is full of others."""
    if not is_away(error):
        return False
    text = str(getattr(error, "orig", error))
    return not text.startswith(_NO_CONNECTION) or any(words in text for words in _NO_CONNECTION_YET)


def _through_races(create: Callable[[], _Result]) -> _Result:
    """Call `create` until it works: several workers that start at once race for the creation of tables."""
    for attempt in range(CREATION_ATTEMPTS):
        try:
            return create()
        except SQLAlchemyError as error:
            text = str(getattr(error, "orig", error)).lower()
            is_race = (isinstance(error, DBAPIError) and "exist" in text) or "unique" in text
            if attempt + 1 == CREATION_ATTEMPTS or not is_race:
                raise
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def create_study(
    storage: RDBStorage,
    name: str,
    *,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    metric: str,
) -> tuple[optuna.Study, bool]:
    """Open the study of this name, creating it when there is none; say whether it was created here."""
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", sampler=sampler, pruner=pruner
        )
        is_new = True
    except optuna.exceptions.DuplicatedStudyError:
        study, is_new = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if is_new or study.metric_names is None:  # Whoever created it may have died before this.
            study.set_metric_names([metric])
    return study, is_new


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """Open an existing study for reading.

    Raises:
        StorageError: There is none of this name; the message lists those there are.
    """
    try:
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError as error:
        names = sorted(optuna.get_all_study_names(storage))
        there = f"There are: {', '.join(names)}." if names else "The database holds no study yet."
        raise StorageError(
            f"There is no stored study {name!r}. {there} Start one with `mfas-optuna search`."
        ) from error


def is_database_error(error: BaseException) -> bool:
    """Return whether an error says that the database could not be reached, read or written."""
    return isinstance(error, sqlalchemy.exc.SQLAlchemyError | optuna.exceptions.StorageInternalError)


@contextlib.contextmanager
def clear_errors(url: str) -> Iterator[None]:
    """Turn whatever the database raises within into a StorageError that names it.

    Raises:
        StorageError: The database could not be reached, read or written.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        text = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise StorageError(
            f"{masked(url)}: the study database failed: {text}. What it acknowledged is kept; once it is mended, the "
            "same command goes on."
        ) from error
