"""Global pooling of outputs of any rank."""

from __future__ import annotations

import pytest
import torch

from mfas_optuna.errors import TapError
from mfas_optuna.features.pooling import pool


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 5, 4), (2, 3, 5, 4, 6)])
def test_mean_over_all_positions(shape: tuple[int, ...]) -> None:
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pooled = pool(output)
    assert pooled.shape == (2, 3)
    assert torch.allclose(pooled, output.reshape(2, 3, -1).mean(dim=2))


def test_channels_last() -> None:
    output = torch.randn(2, 7, 3)
    assert torch.allclose(pool(output, -1), output.mean(dim=1))
    assert torch.equal(pool(output, 2), pool(output, -1))


@pytest.mark.parametrize(("shape", "axis"), [((4,), 1), ((2, 3), 0), ((2, 3), 2), ((2, 3), -2), ((2, 3, 4), -4)])
def test_an_axis_that_holds_no_channels_is_refused(shape: tuple[int, ...], axis: int) -> None:
    with pytest.raises(TapError, match="channel_axis"):
        pool(torch.zeros(shape), axis)
