"""The table of final trainings, at the widths of terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mfas_optuna.cli.final import methods_table
from mfas_optuna.finals import Choice, Final, FinalResult, FinalTraining, Step
from mfas_optuna.worker.final import MethodOutcome

NOTATION = "[(1,1,2),(1,2,2),(2,2,1),(1,2,1)]"


def outcome(title: str, notation: str, step: Step) -> MethodOutcome:
    head = {"kind": "network", "notation": notation, "width": 64}
    recipe = {"learning_rate": 0.003}
    result = FinalResult(0.9, (0.9,), 1, 1_234_567, 10, 1.0, "ab", "2.9", "cpu")
    finals = {seed: Final(seed, FinalTraining("mfas", head, step, recipe, seed), result) for seed in range(4)}
    return MethodOutcome("mfas", title, Choice("mfas", head, step, recipe, finals), dict.fromkeys(range(4), 0.8))


@pytest.mark.parametrize(("width", "is_narrow"), [(160, False), (80, True)])
def test_it_fits_and_cuts_nothing(width: int, is_narrow: bool) -> None:
    methods = [
        outcome("concatenation of all features", NOTATION, "frozen"),
        outcome("MFAS", NOTATION, "unfrozen"),
    ]
    console = Console(file=io.StringIO(), width=width)
    table = methods_table(methods, "accuracy", console)
    assert len(table.columns) == (4 if is_narrow else 6)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    for whole in ("MFAS, unfrozen", NOTATION, "1,234,567", "0.9000 ± 0.0000", "0.8000 ± 0.0000"):
        assert whole in text, whole
