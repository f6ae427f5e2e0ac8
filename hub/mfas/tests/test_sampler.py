"""Optuna's own suites for samplers, and a whole search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import optunahub
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

mfas = optunahub.load_local_module("samplers/mfas", registry_root=str(Path(__file__).parents[3]))

# Large enough that the suites' studies, which never suggest from the space, do not come to the end of depth 1.
LARGE = mfas.SearchSpace({"audio": ["a1", "a2", "a3", "a4"], "image": ["i1", "i2", "i3"]}, ["relu", "tanh"], 4)


class TestMFASSampler(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: mfas.MFASSampler(LARGE, seed=0)


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
def test_a_search_goes_through_its_schedule_and_stops(mode: str) -> None:
    space = mfas.SearchSpace({"audio": ["a1", "a2"], "image": ["i1", "i2"]}, ["relu"], max_depth=2)
    sampler = mfas.MFASSampler(space, n_iterations=2, samples_per_step=3, mode=mode, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: space.suggest(trial).depth / 2)
    depths = [trial.params["depth"] for trial in study.trials]
    first, second = (4, 4) if mode == "paper" else (3, 1)  # Of the four networks of depth 1.
    assert depths == [1] * first + [2] * 3 + [1] * second + [2] * 3
    assert sampler.is_finished(study)
