"""A database that is looked at and not touched."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import optuna
import pytest

from mfas_optuna import storage as database
from mfas_optuna.doctor import Finding
from mfas_optuna.doctor.database import standing
from mfas_optuna.storage.leases import Lease


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_what_is_there_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mfas.db'}"
    opened = database.open_storage(url)
    for name in ("one", "two"):
        optuna.create_study(storage=opened, study_name=name)
    me = database.this_worker()
    Lease(opened, 1, me).beat()
    Lease(opened, 2, type(me)(me.host, "another start", me.pid, me.process_start)).beat()
    Lease(opened, 2, type(me)("another host", "x", 1, 1), grace_s=1e-9).beat()
    opened.engine.dispose()

    before = contents(tmp_path)
    assert set(before) == {"mfas.db"}
    found = by_name(standing(url))
    assert contents(tmp_path) == before
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found["server"].found.startswith(f"{url}: SQLite 3")
    assert found["tables"].found.startswith("version v")
    assert found["studies"].found == "2"
    assert found["workers"].found == "1 alive"


def test_a_database_in_use_is_read_as_it_is_now(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mfas.db'}"
    opened = database.open_storage(url)
    optuna.create_study(storage=opened, study_name="one")
    assert (tmp_path / "mfas.db-wal").exists()
    assert by_name(standing(url))["studies"].found == "1"
    opened.engine.dispose()


def test_no_database_yet(tmp_path: Path) -> None:
    (finding,) = standing(f"sqlite:///{tmp_path / 'mfas.db'}")
    assert finding.level == "ok"
    assert "not there yet" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_tables(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "mfas.db").close()
    (tmp_path / "mfas.db").touch()
    found = by_name(standing(f"sqlite:///{tmp_path / 'mfas.db'}"))
    assert found["tables"].found == "none yet; the first search makes them"


@pytest.mark.parametrize(("version", "remedy"), [("v3.0.0.a", "optuna storage upgrade"), ("v9.9.9.a", "Install")])
def test_tables_of_another_version_are_a_problem(tmp_path: Path, version: str, remedy: str) -> None:
    url = f"sqlite:///{tmp_path / 'mfas.db'}"
    database.open_storage(url).engine.dispose()
    connection = sqlite3.connect(tmp_path / "mfas.db")
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()
    tables = by_name(standing(url))["tables"]
    assert tables.level == "problem"
    assert f"version {version}; this Optuna needs v" in tables.found
    assert remedy in tables.remedy


def test_what_is_no_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "mfas.db").write_bytes(b"no database at all, whatever its name says" * 100)
    for path in (tmp_path / "mfas.db", tmp_path):
        (finding,) = standing(f"sqlite:///{path}")
        assert finding.level == "problem"
        assert str(path) in finding.found
        assert "--storage" in finding.found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "mfas.db"
    path.touch(mode=0)
    assert standing(f"sqlite:///{path}")[0].level == "problem"


def test_a_server_that_does_not_answer_is_a_problem_without_its_password() -> None:
    (finding,) = standing("postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert finding.level == "problem"
    assert "secret" not in finding.found
    assert "127.0.0.1:1" in finding.found
    (finding,) = standing("nonsense")
    assert finding.level == "problem"
    assert "not a database URL" in finding.found


def test_on_postgresql(postgres_url: str) -> None:
    assert by_name(standing(postgres_url))["tables"].found == "none yet; the first search makes them"
    opened = database.open_storage(postgres_url)
    optuna.create_study(storage=opened, study_name="one")
    Lease(opened, 1, database.this_worker()).beat()
    opened.engine.dispose()
    found = by_name(standing(postgres_url))
    assert found["server"].found.split(": ")[1].startswith("PostgreSQL ")
    assert {finding.level for finding in found.values()} == {"ok"}
    assert (found["studies"].found, found["workers"].found) == ("1", "1 alive")
