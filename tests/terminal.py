"""A terminal of a given size, in which a command runs as a person's would."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

# The command gets the terminal as its own, so that Ctrl-C there reaches it.
_LAUNCH = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


class Terminal:
    """Runs one command; what it writes is drawn on a screen that can be looked at.

    Attributes:
        written: All that was written to the terminal so far.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        columns: int,
        lines: int = 24,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self._here, there = os.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        given = {**(os.environ if environment is None else environment)}
        for name in ("COLUMNS", "LINES"):
            given.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *command],
            stdin=there,
            stdout=there,
            stderr=there,
            cwd=folder,
            env={"TERM": "xterm-256color", **given},
        )
        os.close(there)

    @property
    def display(self) -> list[str]:
        """What is on the screen, without spaces at the ends."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def everything(self) -> list[str]:
        """What has scrolled out of sight, and what is on the screen."""
        above = [
            "".join(line[column].data for column in range(self._screen.columns)).rstrip()
            for line in self._screen.history.top
        ]
        return [*above, *self.display]

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._here, keys)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        """Look until a text is on the screen."""
        self._look(lambda: any(text in line for line in self.display), timeout_s)

    def wait(self, timeout_s: float = 120) -> int:
        """Look until the command ends, and return its exit code."""
        self._look(lambda: False, timeout_s)
        return self._process.wait(timeout=timeout_s)

    def _look(self, is_there: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_there():
            left = deadline - time.monotonic()
            assert left > 0, "\n".join(self.everything)
            if not select.select([self._here], [], [], left)[0]:
                continue
            try:
                content = os.read(self._here, 65_536)
            except OSError:  # The command has ended, and with it the other end.
                content = b""
            if not content:
                return
            self.written += content
            self._stream.feed(content)

    def close(self) -> None:
        """End the command if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._here)
