"""What is logged while the live view draws."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from mfas_optuna.cli.view import LiveView, make_view


class Terminal(io.StringIO):
    """Standard error as of a terminal."""

    def isatty(self) -> bool:
        return True


def test_log_lines_stand_above_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins a line: before it, the view goes back to the start of what it had drawn and erases it."""
    terminal, log = Terminal(), logging.getLogger("mfas_optuna")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with make_view(quiet=False) as view:
            assert isinstance(view, LiveView)
            view.progress("training 8 networks", 1, 2)
            view.live.refresh()
            log.warning("something is hot")
            shown = terminal.getvalue()
            assert shown[: shown.index("something is hot")].endswith("\x1b[2K")
        log.warning("and after it")
    finally:
        logging.getLogger().removeHandler(handler)
    assert terminal.getvalue().endswith("and after it\n")
