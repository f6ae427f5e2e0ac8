"""Final training: how the best networks, and what they are compared with, are trained to the end."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mfas_optuna.spec.base import Settings


class Recipe(Settings):
    """One way of training; each of a list is tried for every method, and validation chooses."""

    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of AdamW, for what is trained on frozen backbones."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping a hidden value."""


class UnfrozenSettings(Settings):
    """The second step: backbones and fusion network together, on raw data, with the multitask loss."""

    epochs: int = Field(default=10, ge=1)
    """Epochs at most."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a better validation score after which training ends."""
    batch_size: int = Field(default=64, ge=1)
    """Samples a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the fusion network."""
    backbone_learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate of the backbones."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of all."""
    auxiliary_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of each modality's own output beside that of the fused one (z_x and z_y beside z_xy)."""


class FinalSettings(Settings):
    """Training on frozen backbones to the end, and what follows."""

    widths: list[Annotated[int, Field(ge=1)]] = Field(default=[64], min_length=1)
    """Rows of every W_l; each is tried, and validation chooses."""
    recipes: list[Recipe] = Field(default=[Recipe(), Recipe(learning_rate=1e-3)], min_length=1)
    """Ways of training; each is tried for every method, and validation chooses."""
    epochs: int = Field(default=30, ge=1)
    """Epochs at most."""
    min_steps: int = Field(default=0, ge=0)
    """Steps that all epochs have at least: where there are few rows, an epoch goes over them several times."""
    patience: int = Field(default=6, ge=1)
    """Epochs without a better validation score after which training ends."""
    batch_size: int = Field(default=128, ge=1)
    """Rows a step."""
    auxiliary_weight: float = Field(default=0.5, gt=0)
    """Weight of the mean of the auxiliary losses, for methods that have such."""
    n_tuning_seeds: int = Field(default=1, ge=1)
    """Seeds that everything which validation chooses from is trained with: candidates, widths and recipes."""
    unfrozen: UnfrozenSettings = UnfrozenSettings()
    """The second step."""
