"""Optuna's own suites for samplers, in the mode that takes any score (mode paper refuses the suites' objectives)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

from mfas_optuna import MFASSampler, SearchSpace

# Large enough that the suites' studies, which never suggest from the space, do not come to the end of depth 1.
SPACE = SearchSpace({"audio": ["a1", "a2", "a3", "a4"], "image": ["i1", "i2", "i3"]}, ["relu", "sigmoid"], max_depth=4)


class TestMFASSampler(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Every test of the two suites."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MFASSampler(SPACE, seed=0)
