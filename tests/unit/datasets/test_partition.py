"""Splits that are made keep the proportions of classes, and are the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from mfas_optuna.datasets.partition import hold_out
from mfas_optuna.target import Target


def test_each_class_is_on_both_sides_in_proportion() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 40, 2, 1])
    stay, held = hold_out(labels, Target.of_classes(4), 0.25, seed=0)
    assert sorted([*stay, *held]) == list(range(143))
    assert np.bincount(labels[held], minlength=4).tolist() == [25, 10, 1, 0]
    assert (np.diff(stay) > 0).all()
    assert (np.diff(held) > 0).all()


def test_the_seed_decides() -> None:
    labels = np.arange(60) % 3
    first, again, other = (hold_out(labels, Target.of_classes(3), 0.2, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_rare_labels_are_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < [0.8, 0.3, 0.04]).astype(np.uint8)
    _, held = hold_out(labels, Target("multilabel", ("a", "b", "c")), 0.2, seed=0)
    n_rare = int(labels[:, 2].sum())
    assert 5 <= n_rare <= 15
    assert int(labels[held, 2].sum()) == round(0.2 * n_rare)
    assert len(held) == pytest.approx(40, abs=2)


def test_values_are_spread_over_their_range() -> None:
    values = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    _, held = hold_out(values, Target("regression", ("x", "y")), 0.2, seed=0)
    ranks = np.argsort(np.argsort(values[:, 0]))[held]
    assert np.bincount(ranks // 10, minlength=10).tolist() == [2] * 10
