"""Degradation by principal components, against numpy's own singular values."""

from __future__ import annotations

import numpy as np
import pytest

from mfas_optuna.datasets import degradation

IMAGES = (np.random.default_rng(3).random((60, 12)) @ np.diag(np.arange(1, 13))).astype(np.float32)


def test_leading_components_are_those_of_the_singular_values() -> None:
    degrade = degradation.fit(IMAGES, n_components=3)
    centred = IMAGES.astype(np.float64) - IMAGES.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ vt[:3] + IMAGES.mean(axis=0)
    np.testing.assert_allclose(degrade(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert degrade.variance_kept == pytest.approx((s[:3] ** 2).sum() / (s**2).sum(), rel=1e-5)


def test_leading_and_residual_add_up_to_the_image() -> None:
    leading = degradation.fit(IMAGES, n_components=4)
    residual = degradation.fit(IMAGES, n_components=4, keep="residual")
    np.testing.assert_allclose(leading(IMAGES) + residual(IMAGES) - leading.mean, IMAGES, atol=1e-4)


@pytest.mark.parametrize("energy", [0.25, 0.5, 0.9])
def test_energy_takes_the_fewest_components_that_hold_it(energy: float) -> None:
    degrade = degradation.fit(IMAGES, energy=energy)
    n = len(degrade.components)
    assert degrade.variance_kept >= energy
    assert n == 1 or degradation.fit(IMAGES, n_components=n - 1).variance_kept < energy
