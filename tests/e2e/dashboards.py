"""A dashboard that runs as a process, and what it answers."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .conftest import Cli


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that is running.

    Attributes:
        url: Its address.
        said: What it printed before it was ready.
    """

    url: str
    said: str

    def ask(
        self, path: str, method: str = "GET", body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def text(self, path: str) -> str:
        """Return what is answered to a request that succeeds."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def study(self, name: str = "tiny") -> int:
        status, answer = self.ask("/api/studies")
        assert status == 200
        return next(study["study_id"] for study in answer["study_summaries"] if study["study_name"] == name)


@contextlib.contextmanager
def served(cli: Cli, *arguments: str) -> Iterator[Dashboard]:
    process = cli.start("dashboard", *arguments)
    assert process.stdout is not None
    timer = threading.Timer(180, process.kill)
    timer.start()
    try:
        said, address = "", None
        while address is None:
            line = process.stdout.readline()
            assert line, f"ended before it was ready: {said}{process.communicate()}"
            said += line
            address = re.search(r"open: (http://\S+)", line)
        if "--expose-without-password" not in arguments:
            said += process.stdout.readline()
        timer.cancel()
        yield Dashboard(address[1], said)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in errors
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
