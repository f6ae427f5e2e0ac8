"""What one signal does, and what a second."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from mfas_optuna.errors import Interrupted
from mfas_optuna.worker.interrupts import Interrupts

Interrupts._SAME_S = float(sys.argv[1])
with Interrupts() as interrupts:
    for number in sys.argv[2:]:
        os.kill(os.getpid(), int(number))
    try:
        interrupts.check()
    except Interrupted as stop:
        sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(
    ("same_s", "signals", "code"),
    [
        ("60", [signal.SIGTERM], 143),
        ("60", [signal.SIGTERM] * 3, 143),
        ("0", [signal.SIGTERM] * 2, -signal.SIGTERM),
        ("60", [signal.SIGINT], 130),
        ("60", [signal.SIGINT] * 2, -signal.SIGINT),
        ("60", [signal.SIGTERM, signal.SIGINT], -signal.SIGINT),
        ("60", [signal.SIGINT, signal.SIGTERM], -signal.SIGTERM),
    ],
)
def test_a_second_signal_ends_it_unless_it_is_the_same_request(
    same_s: str, signals: list[signal.Signals], code: int
) -> None:
    numbers = [str(int(number)) for number in signals]
    result = subprocess.run([sys.executable, "-c", PROGRAM, same_s, *numbers], check=False, timeout=100)
    assert result.returncode == code
