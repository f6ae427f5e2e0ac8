"""A private PostgreSQL for tests: started from the installed binaries in a temporary folder, stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any, Literal

import psycopg


def find_binaries() -> Path | None:
    """Return the folder of the newest installed PostgreSQL's programs, or None."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


class PostgresServer:
    """One cluster, reached by a socket in its own folder only; it outlives its own crash, not that of the machine."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="mfas-pg-", dir="/tmp"))  # A socket's path must be short.
        self._owner: dict[str, Any] = {}  # PostgreSQL refuses to run as root.
        self._user = pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            self._user = "postgres"
            shutil.chown(self.folder, "postgres", "postgres")
            self._owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _call(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            **self._owner,
        )
        assert result.returncode == 0, f"{program}: {result.stdout}\n{self.log()}"

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = (
            f"-k {self.folder} -c listen_addresses='' -c fsync=off -c full_page_writes=off "
            "-c max_connections=60 -c shared_buffers=32MB"
        )
        log = str(self.folder / "log")
        # pg_ctl's own output goes to a file: the server would inherit a pipe and keep it open.
        with (self.folder / "pg_ctl.log").open("w") as output:
            subprocess.run(
                [self._binaries / "pg_ctl", "-D", self._data, "-l", log, "-w", "-o", options, "start"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60, check=True,
                **self._owner,
            )  # fmt: skip

    def stop(self, how: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", how, "stop")

    def restart(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again."""
        self.stop(how)
        self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a connection that commits each statement."""
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"mfas_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return name

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def terminate_backends(self, database: str) -> int:
        """Cut every connection to a database; return how many there were."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            ).fetchall()
        return len(rows)

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
