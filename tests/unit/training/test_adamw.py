"""AdamW on a flat parameter is torch's optimiser, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mfas_optuna.training.adamw import FlatAdamW


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_it_is_torchs_adamw_bit_for_bit(dtype: torch.dtype, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1003, generator=generator, dtype=dtype)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([theirs], lr=1.0, weight_decay=weight_decay, fused=True)
    flat = FlatAdamW(ours, weight_decay=weight_decay)
    for step in range(50):
        learning_rate = 1e-2 / (1 + step)
        gradient = torch.randn(1003, generator=generator, dtype=dtype)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        flat.step(learning_rate)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        assert torch.equal(ours, theirs)
    remembered = optimizer.state[theirs]
    assert torch.equal(flat.exp_avg, remembered["exp_avg"])
    assert torch.equal(flat.exp_avg_sq, remembered["exp_avg_sq"])
    assert torch.equal(flat.n_steps, remembered["step"])


def test_a_training_goes_on_from_what_another_remembered() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 5, generator=generator)
    whole = nn.Parameter(torch.ones(5))
    without_break = FlatAdamW(whole, weight_decay=1e-2)
    parts = nn.Parameter(torch.ones(5))
    first = FlatAdamW(parts, weight_decay=1e-2)
    for gradient in gradients[:3]:
        whole.grad = parts.grad = gradient
        without_break.step(1e-2)
        first.step(1e-2)
    second = FlatAdamW(parts, weight_decay=1e-2)
    second.exp_avg, second.exp_avg_sq, second.n_steps = first.exp_avg, first.exp_avg_sq, first.n_steps
    for gradient in gradients[3:]:
        whole.grad = parts.grad = gradient
        without_break.step(1e-2)
        second.step(1e-2)
    assert torch.equal(whole, parts)
