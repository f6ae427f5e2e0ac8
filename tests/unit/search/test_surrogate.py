"""The surrogate: what it can learn, and what it must not depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.search import surrogate as module
from mfas_optuna.search.surrogate import EMBEDDING, HIDDEN, Batch, Surrogate

from .helpers import SPACE, score

NETWORKS = [SPACE.architecture(index) for index in range(0, SPACE.size, 7)]
SCORES = np.array([score(network) for network in NETWORKS])


def fitted(seed: int = 0, *, bounded: bool = True) -> Surrogate:
    surrogate = Surrogate(SPACE, seed=seed, bounded=bounded)
    for _ in range(3):
        surrogate.update(NETWORKS, SCORES)
    return surrogate


def test_it_ranks_networks_it_was_not_shown() -> None:
    """84 networks seen, 500 not: rank correlation above 0.5 (luck alone would have to deviate 11 times its 0.045)."""
    unseen = [SPACE.architecture(index) for index in range(SPACE.size) if index % 7]
    predicted, actual = fitted().predict(unseen), np.array([score(network) for network in unseen])
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, actual)]
    assert np.corrcoef(*ranks)[0, 1] > 0.5


def test_a_prediction_does_not_depend_on_what_else_is_predicted() -> None:
    surrogate = fitted()
    together = surrogate.predict(NETWORKS)
    alone = [surrogate.predict([network])[0] for network in NETWORKS]
    assert together == pytest.approx(alone, abs=1e-6)


def test_bounded_predictions_are_accuracies() -> None:
    predictions = fitted().predict(NETWORKS)
    assert predictions.min() > 0
    assert predictions.max() < 1


def test_same_seed_same_predictions_whatever_torch_is_set_to() -> None:
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    first = fitted().predict(NETWORKS)
    torch.manual_seed(99)
    torch.set_num_threads(2)
    try:
        second = fitted().predict(NETWORKS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
        torch.set_rng_state(state)
    assert first.tolist() == second.tolist()
    assert fitted(seed=1).predict(NETWORKS).tolist() != first.tolist()


def test_it_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    fitted()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_new_surrogate_predicts_nothing_in_particular() -> None:
    """The released code starts with every prediction at 0.858; here the first lie about one half."""
    predictions = Surrogate(SPACE, seed=0, bounded=True).predict(NETWORKS)
    assert abs(predictions.mean() - 0.5) < 0.1


def test_three_modalities() -> None:
    space = SearchSpace({"a": ["x"], "b": ["x", "y"], "c": ["x", "y", "z"]}, ["relu"], max_depth=2)
    networks = [space.architecture(index) for index in range(space.size)]
    surrogate = Surrogate(space, seed=0, bounded=False)
    surrogate.update(networks, np.arange(len(networks)) / len(networks))
    assert len(surrogate.predict(networks)) == space.size


class Twin(nn.Module):
    """The same network by torch's LSTM, one architecture at a time."""

    def __init__(self, surrogate: Surrogate, radices: Sequence[int], *, bounded: bool) -> None:
        super().__init__()
        self._bounded = bounded
        n_inputs = EMBEDDING * len(radices)
        shapes = [
            (sum(radices), EMBEDDING),
            (4 * HIDDEN, n_inputs),
            (4 * HIDDEN, HIDDEN),
            (HIDDEN,),
            (4 * HIDDEN,),
            (1,),
        ]
        parts = surrogate.flat.split([math.prod(shape) for shape in shapes])
        embedding, inputs, state, head, bias, head_bias = (
            part.view(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        self.embeddings = nn.ParameterList([nn.Parameter(part.clone()) for part in embedding.split(list(radices))])
        self.head, self.head_bias = nn.Parameter(head.clone()), nn.Parameter(head_bias.clone())
        self.lstm = nn.LSTM(n_inputs, HIDDEN, dtype=torch.float64)
        order = [0, 1, 3, 2]  # torch has what is to be stored before the output gate.
        with torch.no_grad():
            for to, of in (("weight_ih_l0", inputs), ("weight_hh_l0", state), ("bias_ih_l0", bias)):
                blocks = of.split(HIDDEN)
                getattr(self.lstm, to).copy_(torch.cat([blocks[block] for block in order]))
            self.lstm.bias_hh_l0.zero_()

    def forward(self, architecture: Architecture) -> Tensor:
        inputs_LI = torch.stack(
            [
                torch.cat(
                    [table[value] for table, value in zip(self.embeddings, (*x.features, x.activation), strict=True)]
                )
                for x in architecture.layers
            ]
        )
        logit: Tensor = self.lstm(inputs_LI)[0][-1] @ self.head + self.head_bias[0]
        return logit.sigmoid() if self._bounded else logit

    def gradient(self) -> Tensor:
        """Return it in the surrogate's layout."""

        def blocks(of: Tensor | None) -> list[Tensor]:
            assert of is not None
            first, second, fourth, third = of.split(HIDDEN)
            return [first, second, third, fourth]

        lstm = [
            blocks(weight.grad) for weight in (self.lstm.weight_ih_l0, self.lstm.weight_hh_l0, self.lstm.bias_ih_l0)
        ]
        parts = [
            *(table.grad for table in self.embeddings), *lstm[0], *lstm[1],
            self.head.grad, *lstm[2], self.head_bias.grad,
        ]  # fmt: skip
        return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("networks", [NETWORKS, NETWORKS[:3], NETWORKS[-1:]])
def test_predictions_and_gradients_are_those_of_torchs_lstm(bounded: bool, networks: list[Architecture]) -> None:
    surrogate = Surrogate(SPACE, seed=3, bounded=bounded, dtype=torch.float64)
    surrogate.flat += 0.1  # So that no bias is 0.
    twin = Twin(surrogate, SPACE.layer_radices, bounded=bounded)
    expected_N = torch.stack([twin(network) for network in networks])
    assert surrogate.predict(networks) == pytest.approx(expected_N.detach().numpy(), abs=1e-12)
    targets_N = torch.as_tensor(SCORES[: len(networks)])
    (expected_N - targets_N).square().mean().backward()
    batch = Batch(surrogate, networks)
    surrogate.gradient(batch, targets_N[batch.order_N])
    assert torch.allclose(surrogate.flat_gradient, twin.gradient(), rtol=0, atol=1e-12)


def test_updates_that_are_known_give_the_same_as_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when more scores than fit a batch come after a known update."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 30)

    def predictions(n_updates: int) -> list[float]:
        surrogate = Surrogate(SPACE, seed=5, bounded=True)
        for n in range(n_updates):
            surrogate.update(NETWORKS[n:], SCORES[n:])
        return surrogate.predict(NETWORKS).tolist()

    monkeypatch.setattr(module, "_fits", {})
    fresh = predictions(3)
    n_kept = len(module._fits)
    assert predictions(3) == fresh
    assert len(module._fits) == n_kept == 3
    monkeypatch.setattr(module, "_fits", {})
    predictions(1)
    assert predictions(3) == fresh
    monkeypatch.setattr(module, "FITS_KEPT", 2)
    predictions(5)
    assert len(module._fits) == 2


def test_other_scores_or_another_seed_are_not_known() -> None:
    first = Surrogate(SPACE, seed=0, bounded=True)
    first.update(NETWORKS, SCORES)
    for seed, scores in ((1, SCORES), (0, SCORES + 0.01)):
        other = Surrogate(SPACE, seed=seed, bounded=True)
        other.update(NETWORKS, scores)
        assert not torch.equal(first.flat, other.flat)
