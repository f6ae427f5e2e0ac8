"""`status --watch`: what is drawn in a terminal, and what is printed elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from mfas_optuna.cli import status as cli_status
from mfas_optuna.cli.status import Frame, _fitting
from mfas_optuna.storage import LeasedWorker
from mfas_optuna.trials import RankedNetwork, WorkerIdentity
from mfas_optuna.worker.status import StepStatus, StudyStatus

LONGEST = "[" + ",".join(f"({layer},4,2)" for layer in (1, 2, 3, 4)) + "]"


def a_status(n_finished: int = 30, n_steps: int = 20, n_best: int = 5, age_s: float = 1.0) -> StudyStatus:
    return StudyStatus(
        study_name="avmnist-paper-seed3",
        metric="accuracy",
        is_finished=n_finished == 300,
        n_planned=300,
        n_by_state={"COMPLETE": n_finished, "RUNNING": 15, "FAIL": 2},
        n_by_failure={"diverged": 2},
        steps=[StepStatus(1 + step // 4, 1 + step % 4, 0.5, 15, 0, 0.81234, 0.91234, None) for step in range(n_steps)],
        best=[RankedNetwork(LONGEST, 0.9123, 1_234_567, 100 + rank, {}) for rank in range(n_best)],
        backbones={},
        timings_s={"search": 100.0},
        warnings=[],
        stand_in="ntu, generated: 200 samples, 6 classes, seed 0, which is long enough for more than one line of 80",
        card="",
        workers=[LeasedWorker(WorkerIdentity("host.example.org", "boot", pid, 1), age_s, 60.0) for pid in (1, 2)],
        ledger=[],
    )


def drawn(frame: Frame, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    return ["".join(segment.text for segment in line) for line in console.render_lines(frame, pad=False)]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("height", [12, 24, 50])
def test_a_frame_fits_the_terminal(width: int, height: int) -> None:
    frame = Frame(2.0)
    assert drawn(frame, width, height) == []
    frame.show(a_status())
    lines = drawn(frame, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "Study avmnist-paper-seed3: not finished, 30 of 300 trials" in text
    assert "Workers: 2 at host.example.org" in text
    assert "failed, diverged: 2" in text
    assert "every 2 s; Ctrl-C ends it" in lines[-1]
    if height >= 24:
        assert "        5 │     4 │ 0.50 │" in text  # The last step.
        assert f"   1 │ {LONGEST} │ 0.9123 │  1,234,567 │   100" in text
    assert text.count(LONGEST) >= {12: 0, 24: 3, 50: 5}[height]


@pytest.mark.parametrize("n_lines", range(-3, 40))
@pytest.mark.parametrize(("n_steps", "n_best"), [(0, 0), (0, 5), (20, 0), (1, 5), (20, 5), (20, 1)])
def test_tables_take_the_lines_that_there_are(n_lines: int, n_steps: int, n_best: int) -> None:
    steps, best = _fitting(n_lines, n_steps, n_best)
    assert 0 <= steps <= n_steps
    assert 0 <= best <= n_best
    used = (steps + 2 if steps else 0) + (best + 3 if best else 0)
    assert used <= max(0, n_lines)
    if n_lines >= n_steps + n_best + 5:
        assert (steps, best) == (n_steps, n_best)


def looks() -> Iterator[StudyStatus]:
    """A study that stands still for a look, with other ages of its workers, and then ends."""
    yield a_status(30)
    yield a_status(30, age_s=3.0)
    yield a_status(300)


def test_elsewhere_a_block_is_printed_when_something_has_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    cli_status._watch_as_blocks(looks())
    first, second = capsys.readouterr().out.split("\n\n")
    assert "not finished, 30 of 300 trials" in first
    assert ": finished, 300 of 300 trials" in second
    assert first.splitlines()[0].endswith(" UTC")
    assert "\x1b" not in first + second


def test_json_comes_a_line_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    cli_status._watch_as_json(looks())
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["trials"]["COMPLETE"] for line in lines] == [30, 300]


def test_a_worker_more_or_less_is_a_change() -> None:
    fewer = replace(a_status(30), workers=a_status(30).workers[:1])
    assert len(list(cli_status._changes(iter([a_status(30), fewer, fewer])))) == 2
