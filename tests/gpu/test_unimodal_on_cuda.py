"""A backbone trained on CUDA in mixed precision: it learns, goes on after an interruption, and is float32 outside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfas_optuna.spec import UnimodalTraining
from mfas_optuna.training import unimodal
from mfas_optuna.training.unimodal import train_unimodal
from tests.unit.training.test_unimodal import Dropping, make_dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")

CUDA = torch.device("cuda")
SETTINGS = UnimodalTraining(epochs=8, batch_size=45, learning_rate=2e-2)


class StopError(Exception):
    pass


def test_the_forward_pass_is_in_bfloat16_and_weights_and_scores_are_in_float32() -> None:
    seen: set[tuple[bool, torch.dtype]] = set()

    class Watched(Dropping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = super().forward(x)
            seen.add((self.training, outputs.dtype))
            return outputs

    model = Watched()
    state = torch.cuda.get_rng_state(CUDA)
    result = train_unimodal(model, make_dataset(), "image", SETTINGS, device=CUDA)
    assert torch.equal(torch.cuda.get_rng_state(CUDA), state)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(tensor.dtype != torch.bfloat16 for tensor in model.state_dict().values())
    assert result.validation_score > 0.8  # Chance is 0.5.


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all kernels of CUDA give the same bits twice, so weights are compared to 1e-2."""
    monkeypatch.setattr(unimodal, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(unimodal, "WORK_FOR_WRITING", 0)
    told: list[int] = []

    def stop(_: str, done: int, total: int) -> None:
        if done == 20:
            raise StopError

    def train(folder: Path | None, progress: object) -> torch.nn.Module:
        model = Dropping()
        arguments = {"device": CUDA, "checkpoint": folder, "progress": progress}
        train_unimodal(model, make_dataset(), "image", SETTINGS, **arguments)  # type: ignore[arg-type]
        return model

    with torch.backends.cudnn.flags(deterministic=True):
        with pytest.raises(StopError):
            train(tmp_path / "checkpoint", stop)
        resumed = train(tmp_path / "checkpoint", lambda _, done, total: told.append(done)).state_dict()
        uninterrupted = train(None, lambda *_: None).state_dict()
    assert told[0] >= 20
    for name, tensor in uninterrupted.items():
        assert torch.allclose(resumed[name].float(), tensor.float(), atol=1e-2), name
