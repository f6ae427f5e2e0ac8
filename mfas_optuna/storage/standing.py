"""What a study database holds, read without writing anything to it: no tables are made, no journal is switched."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import Column, Connection, Engine, Integer, String, Table
from sqlalchemy.pool import NullPool

from mfas_optuna.errors import StorageError
from mfas_optuna.storage.leases import read_all_leases
from mfas_optuna.storage.opening import GET_DRIVER, POSTGRES_ARGUMENTS, masked, parse_url
from mfas_optuna.storage.workers import is_dead

_metadata = sqlalchemy.MetaData()
_VERSION = Table("alembic_version", _metadata, Column("version_num", String))
_STUDIES = Table("studies", _metadata, Column("study_id", Integer))


@dataclass(frozen=True, slots=True)
class DatabaseStanding:
    """What a database holds.

    Attributes:
        server: Which program, with its version.
        schema: Version of Optuna's tables in it; None where it has none.
        newest_schema: Version that the installed Optuna works with.
        is_schema_known: Whether the installed Optuna knows the version in the database.
        n_studies: How many studies there are.
        n_workers: How many workers live, as far as their leases and this host tell.
    """

    server: str
    schema: str | None
    newest_schema: str
    is_schema_known: bool
    n_studies: int
    n_workers: int


def read_standing(url: str) -> DatabaseStanding | None:
    """Return what a database holds, None when it is a file that is not there.

    Raises:
        StorageError: The URL is not valid, its driver is missing, or the database cannot be reached or read.
    """
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    path = Path(str(parsed.database))
    if is_sqlite and not path.exists():
        return None
    try:
        engine = _reading(path) if is_sqlite else _reaching(url)
        with engine.connect() as connection:
            return _read(connection)
    except (ImportError, ModuleNotFoundError) as error:
        raise StorageError(f"{masked(url)}: the database's driver is missing: {error}. {GET_DRIVER}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        text = str(getattr(error, "orig", error)).strip().splitlines()[0]
        hint = (
            "Is it a study database, and may you read it? Name another with --storage."
            if is_sqlite
            else "Is it running, and are the host, port, user and password right?"
        )
        raise StorageError(f"{masked(url)}: the study database cannot be read: {text}. {hint}") from error


def _reading(path: Path) -> Engine:
    """Return an engine for a SQLite file that leaves no files beside it."""
    # To read a database in write-ahead mode SQLite makes files beside it, unless nobody else can be writing it.
    is_in_use = path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{quote(str(path.absolute()))}?{'mode=ro' if is_in_use else 'immutable=1'}"
    return sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)


def _reaching(url: str) -> Engine:
    options = "-c default_transaction_read_only=on"
    return sqlalchemy.create_engine(url, connect_args={**POSTGRES_ARGUMENTS, "options": options}, poolclass=NullPool)


def _read(connection: Connection) -> DatabaseStanding:
    version = ".".join(map(str, connection.dialect.server_version_info or ()))
    title = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.dialect.name]
    there = set(sqlalchemy.inspect(connection).get_table_names())
    schema = None
    if _VERSION.name in there:
        schema = connection.execute(sqlalchemy.select(_VERSION.c.version_num)).scalar_one_or_none()
    n_studies = 0
    if _STUDIES.name in there:
        n_studies = int(
            connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(_STUDIES)).scalar_one()
        )
    leases = read_all_leases(connection) if "mfas_workers" in there else []
    fresh = RDBStorage("sqlite:///:memory:")  # Of a new database the versions can be asked for.
    try:
        newest, known = fresh.get_head_version(), fresh.get_all_versions()
    finally:
        fresh.engine.dispose()
    return DatabaseStanding(
        server=f"{title} {version}",
        schema=schema,
        newest_schema=newest,
        is_schema_known=schema in known,
        n_studies=n_studies,
        n_workers=sum(not (lease.is_stale or is_dead(lease.worker)) for lease in leases),
    )
