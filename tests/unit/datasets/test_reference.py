"""The comparison with the paper's unimodal scores."""

from __future__ import annotations

import pytest

from mfas_optuna.datasets import compare_with_paper
from mfas_optuna.spec import AvmnistSettings, DigitsSettings

FULL = AvmnistSettings(name="avmnist")


@pytest.mark.parametrize(
    ("modality", "score", "is_near", "part"),
    [
        ("audio", 0.6606, True, "66.06% on test, the paper's 66.06% (+0.0 points): as hard"),
        ("audio", 0.7106, True, "(+5.0 points)"),
        ("audio", 0.72, False, "are easier than the paper's"),
        ("image", 0.69, False, "are harder than the paper's"),
        ("image", 0.7469, True, "74.69% on test, the paper's 74.52%"),
    ],
)
def test_full_size(modality: str, score: float, is_near: bool, part: str) -> None:
    comparison = compare_with_paper(FULL, modality, score)
    assert comparison is not None
    assert comparison.is_near is is_near
    assert part in comparison.text


def test_nothing_to_compare_with() -> None:
    assert compare_with_paper(DigitsSettings(name="digits"), "audio", 0.7) is None
    assert compare_with_paper(AvmnistSettings(name="avmnist", n_train=5000), "audio", 0.7) is None
    assert compare_with_paper(FULL, "video", 0.7) is None
