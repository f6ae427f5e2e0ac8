"""What is seen in terminals of 80 and 160 columns, without colour, in pipes and in the logs of a CI."""

from __future__ import annotations

import re

import pytest

from ..terminal import Terminal
from .conftest import COMMAND, Cli

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


def seen(cli: Cli, *arguments: str, columns: int = 80, **environment: str) -> tuple[list[str], str]:
    """Return what a command left in a terminal, and all that it wrote there."""
    changed = {**cli.environment(), "NO_COLOR": "", **environment}
    terminal = Terminal([COMMAND, *arguments], columns=columns, folder=cli.folder, environment=changed)
    try:
        assert terminal.wait() == 0, "\n".join(terminal.everything)
        return terminal.everything, terminal.written.decode()
    finally:
        terminal.close()


@pytest.mark.parametrize("columns", [80, 160])
def test_a_search_is_drawn_in_place_and_leaves_its_result(cli: Cli, columns: int) -> None:
    lines, written = seen(cli, "search", "--study", "tiny", "--trials", "8", columns=columns)
    assert written.count("trials/min") > 0
    assert COLOUR.search(written)
    left = "\n".join(lines)
    assert "Search: 8 trials" in lines
    assert "trials/min" not in left
    assert sum("━╇━" in line for line in lines) == 1
    assert sum(line.endswith(("0", "1", "2", "3", "4", "5", "6", "7")) and "│" in line for line in lines) == 5


def test_without_colour(cli: Cli) -> None:
    for command in (["search", "--study", "tiny", "--trials", "4"], ["status", "--study", "tiny"]):
        _, written = seen(cli, *command, NO_COLOR="1")
        assert not COLOUR.search(written)


def test_a_dumb_terminal_gets_lines(cli: Cli) -> None:
    lines, written = seen(cli, "search", "--study", "tiny", "--trials", "4", TERM="dumb", columns=160)
    assert "\x1b" not in written
    assert sum("trials/min" in line for line in lines) == 4


def test_a_log_gets_lines_though_colour_is_forced(cli: Cli) -> None:
    result = cli.run("search", "--study", "tiny", "--trials", "4", FORCE_COLOR="1", CI="true")
    assert result.returncode == 0
    assert len([line for line in result.stderr.splitlines() if "trials/min" in line]) == 4
    assert "\x1b" not in result.stderr
    assert "\x1b[" in result.stdout  # The result, as asked for.


def test_pipes_and_80_columns(cli: Cli) -> None:
    """A pipe gets no control characters; in a terminal no cell is cut, and tables need no more than the 80 columns."""
    cli.ok("search", "--study", "tiny", "--quiet")
    for command in ("status", "fsck", "show", "report", "doctor"):
        assert "\x1b" not in cli.ok(command, "--study", "tiny")
        _, written = seen(cli, command, "--study", "tiny")
        drawn = [line for line in written.replace("\r", "").split("\n") if re.search("[━│┃╇─]", line)]
        assert drawn or command not in ("status", "report")
        assert "…" not in "".join(drawn)
        assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()) <= 80 for line in drawn)
