"""The batch size of extraction: timed where there is much to do, never where there is little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.features.batch_size import (
    CPU_CANDIDATES,
    DEFAULT_BATCH_SIZE,
    choose_batch_size,
    n_trial_samples,
)

CPU = torch.device("cpu")
TAPS = [Tap("linear", "linear")]
INPUTS = np.zeros((300, 3), dtype=np.float32)
N_LARGE = 60_000


class Timed(nn.Module):
    """Moves a clock of its own forward by what a batch would take; can run out of memory."""

    def __init__(self, seconds: Callable[[int], float], *, largest: int = 10_000) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.batches: list[int] = []
        self.now = 0.0
        self._seconds = seconds
        self._largest = largest

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self._largest:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(x))
        self.now += self._seconds(len(x))
        result: Tensor = self.linear(x)
        return result


def choose(model: Timed, n_samples: int = N_LARGE, **changes: object) -> int:
    arguments = {"n_samples": n_samples, "device": CPU, "clock": lambda: model.now, **changes}
    return choose_batch_size(model, TAPS, INPUTS, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("fastest", CPU_CANDIDATES)
def test_the_fastest_for_each_sample_is_chosen(fastest: int) -> None:
    assert choose(Timed(lambda n: n * (1.0 if n == fastest else 1.2))) == fastest


def test_overhead_of_a_batch_speaks_for_large_ones_and_a_small_cache_for_small_ones() -> None:
    assert choose(Timed(lambda n: 1.0 + 0.01 * n)) == 64
    assert choose(Timed(lambda n: float(n * n))) == 8


def test_one_disturbed_round_does_not_decide() -> None:
    model = Timed(lambda n: n * (1.0 if n == 16 else 1.1))
    undisturbed = model._seconds
    # Something else ran while 16 was timed for the first time after the warm-up.
    model._seconds = lambda n: undisturbed(n) * (50.0 if n == 16 and model.batches.count(16) == 5 else 1.0)
    assert choose(model) == 16


def test_candidates_take_turns_and_the_trial_is_as_short_as_promised() -> None:
    model = Timed(lambda n: float(n))
    choose(model)
    turn = [8] * 8 + [16] * 4 + [32] * 2 + [64]
    assert model.batches == turn * 4
    assert sum(model.batches) == n_trial_samples(CPU_CANDIDATES) <= 0.03 * N_LARGE


@pytest.mark.parametrize("n_samples", [1, 6_000, 30_000])
def test_small_data_are_not_timed_at_all(n_samples: int) -> None:
    model = Timed(lambda n: float(n))
    assert choose(model, n_samples) == DEFAULT_BATCH_SIZE
    assert model.batches == []


def test_a_candidate_without_memory_drops_out() -> None:
    model = Timed(lambda n: 1.0 + 0.01 * n, largest=40)
    assert choose(model) == 32
    assert set(model.batches) == {8, 16, 32}
    assert choose(Timed(lambda n: 1.0, largest=0)) == 8


def test_a_real_clock_gives_one_of_the_candidates() -> None:
    model = Timed(lambda n: 0.0)
    assert choose_batch_size(model, TAPS, INPUTS, n_samples=N_LARGE, device=CPU) in CPU_CANDIDATES
