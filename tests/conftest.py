"""Settings of every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .postgres import PostgresServer, find_binaries

# Several test processes run at once; torch's threads would wait for each other (docs/decisions/0011-threads.md).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process; tests take a database of their own in it."""
    binaries = find_binaries()
    if binaries is None:
        reason = "PostgreSQL's server programs are not installed (Debian: apt-get install postgresql)."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = PostgresServer(binaries)
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.url(postgres.new_database())
