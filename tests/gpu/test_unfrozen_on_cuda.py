"""Backbones and head trained together on CUDA in mixed precision; scored in float32."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.spec.final import UnfrozenSettings
from mfas_optuna.training import unfrozen
from mfas_optuna.training.fused import FusedModel
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.unfrozen import UnfrozenResult, score_fused, train_unfrozen
from tests.unit.training.test_fused import make_dataset, make_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")

CUDA = torch.device("cuda")
SETTINGS = UnfrozenSettings(epochs=10, patience=10, batch_size=24, learning_rate=1e-2, backbone_learning_rate=1e-2)


class StopError(Exception):
    pass


def train(model: FusedModel, folder: Path | None = None, stop_at: int | None = None) -> UnfrozenResult:
    def progress(_: str, done: int, total: int) -> None:
        if done == stop_at:
            raise StopError

    return train_unfrozen(model, make_dataset(), SETTINGS, device=CUDA, seed=0, checkpoint=folder, progress=progress)


def test_it_learns_in_bfloat16_and_is_scored_in_float32() -> None:
    model = make_model(make_dataset(), outputs=["values"], dropout=0.1)
    seen: set[tuple[bool, torch.dtype]] = set()

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        seen.add((module.training, output.dtype))

    model.backbone("image").register_forward_hook(note)
    state = torch.cuda.get_rng_state(CUDA)
    result = train(model)
    assert torch.equal(torch.cuda.get_rng_state(CUDA), state)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert result.score > 0.8  # Chance is 0.25.
    assert all(tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16 for tensor in result.state.values())
    split, scale = make_dataset().splits["validation"], LabelScale.of_units("multiclass")
    assert score_fused(model, split, "accuracy", CUDA, scale) == pytest.approx(result.score, abs=0.03)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all kernels of CUDA give the same bits twice, so scores are compared to a few samples."""
    monkeypatch.setattr(unfrozen, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(unfrozen, "WORK_FOR_WRITING", 0)
    with torch.backends.cudnn.flags(deterministic=True):
        whole = train(make_model(make_dataset()))
        with contextlib.suppress(StopError):
            train(make_model(make_dataset()), tmp_path / "checkpoint", stop_at=40)
        resumed = train(make_model(make_dataset()), tmp_path / "checkpoint")
    assert len(resumed.epoch_scores) == len(whole.epoch_scores) == 11
    assert resumed.epoch_scores == pytest.approx(whole.epoch_scores, abs=0.1)
