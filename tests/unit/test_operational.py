"""Settings of workers: option over environment over default, and what is refused."""

from __future__ import annotations

import pytest

from mfas_optuna import spec as settings
from mfas_optuna.errors import SpecError


def test_option_over_environment_over_default() -> None:
    assert settings.n_workers(None, {}) == 1
    assert settings.n_workers(None, {"MFAS_WORKERS": "3"}) == 3
    assert settings.n_workers(2, {"MFAS_WORKERS": "3"}) == 2
    assert (settings.beat_s({}), settings.grace_s({})) == (5.0, 60.0)
    assert settings.beat_s({"MFAS_BEAT": "0.5"}) == 0.5
    assert (settings.patience_s({}), settings.patience_s({"MFAS_PATIENCE": "0.1"})) == (180.0, 0.1)
    assert settings.grace_s({"MFAS_BEAT": "0.5", "MFAS_GRACE": "2.5"}) == 2.5


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5"])
def test_the_number_of_workers_is_a_number_from_one(text: str) -> None:
    with pytest.raises(SpecError, match=f"MFAS_WORKERS: expected a number from 1, found '{text}'"):
        settings.n_workers(None, {"MFAS_WORKERS": text})


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_seconds_are_above_zero(text: str) -> None:
    with pytest.raises(SpecError, match=f"MFAS_BEAT: expected a number of seconds above 0, found '{text}'"):
        settings.beat_s({"MFAS_BEAT": text})
    with pytest.raises(SpecError, match="MFAS_PATIENCE"):
        settings.patience_s({"MFAS_PATIENCE": text})


def test_a_grace_leaves_time_for_a_few_beats() -> None:
    with pytest.raises(SpecError, match=r"MFAS_GRACE: expected at least five times MFAS_BEAT \(5 s\), found 10"):
        settings.grace_s({"MFAS_GRACE": "10"})
