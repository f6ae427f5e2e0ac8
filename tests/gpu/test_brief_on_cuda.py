"""The same trial on CUDA and on the CPU."""

from __future__ import annotations

import pytest
import torch

from mfas_optuna.spec import BriefTraining
from mfas_optuna.training.brief import train_briefly
from tests.unit.training.test_brief import NETWORK, SPACE, make_data, make_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")


@pytest.mark.parametrize("epochs", [2, 5])
def test_scores_agree_with_the_cpu(epochs: int) -> None:
    """Within 1e-3: two of the 2,000 rows may fall on the other side."""
    settings = BriefTraining(epochs=epochs, batch_size=64)
    scores = []
    for device in ("cpu", "cuda"):
        data = make_data(4000, 2000, device=device)
        network = make_network().to(device)
        result = train_briefly(network, NETWORK, data, SPACE, settings, generator=torch.Generator().manual_seed(1))
        assert all(tensor.device.type == "cpu" for state in result.layer_states for tensor in state.values())
        scores.append(result.epoch_scores)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
