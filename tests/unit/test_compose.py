"""storage/compose.yaml: well-formed, pinned, closed to the outside; Docker itself is not needed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm import free_ports

COMPOSE = Path(__file__).parents[2] / "storage" / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    settings = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert set(settings) == {"name", "services", "volumes"}
    assert set(settings["services"]) == {"database", "dashboard"}
    return dict(settings["services"])


def test_the_database_keeps_its_data_needs_a_password_and_says_when_it_is_ready(services: dict[str, Any]) -> None:
    database = services["database"]
    assert re.fullmatch(r"postgres:\d+", database["image"])
    assert database["environment"]["POSTGRES_PASSWORD"].startswith("${MFAS_DB_PASSWORD:?")
    assert database["volumes"] == ["database:/var/lib/postgresql/data"]
    assert database["healthcheck"]["test"][1] == "pg_isready"
    assert services["dashboard"]["depends_on"]["database"]["condition"] == "service_healthy"


def test_ports_are_bound_to_the_machine_and_the_dashboard_s_to_nothing_else(services: dict[str, Any]) -> None:
    (database,), (dashboard,) = services["database"]["ports"], services["dashboard"]["ports"]
    assert database.startswith("${MFAS_DB_BIND:-127.0.0.1}:")
    assert dashboard.startswith("127.0.0.1:")


def test_the_dashboard_s_program_serves_a_database(services: dict[str, Any], postgres_url: str) -> None:
    """The program of the container, with this interpreter and another port."""
    _, flag, program = services["dashboard"]["command"]
    (port,) = free_ports(1)
    assert "port=8080" in program
    process = subprocess.Popen(
        [sys.executable, flag, program.replace("port=8080", f"port={port}").replace("0.0.0.0", "127.0.0.1")],
        env={**os.environ, "MFAS_STORAGE": postgres_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                    assert b"study_summaries" in answer.read()
                return
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
