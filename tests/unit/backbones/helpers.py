"""Networks made from settings, and what they were trained to expect."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mfas_optuna.backbones import build_backbone
from mfas_optuna.spec import NetworkSettings


def build_network(
    settings: NetworkSettings, sample_shape: tuple[int, ...], n_outputs: int, seed: int = 0, folder: Path = Path()
) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_backbone(settings, sample_shape=sample_shape, n_outputs=n_outputs, generator=generator, folder=folder)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_backward(model: nn.Module, outputs: torch.Tensor) -> None:
    """Every weight gets a finite gradient, and not all zero."""
    outputs.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in list(model.parameters())[-2:])
