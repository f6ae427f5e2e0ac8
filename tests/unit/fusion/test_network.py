"""The fusion network against the plain oracle, its size, its errors and where its randomness comes from."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfas_optuna.errors import FusionShapeError, SpaceError
from mfas_optuna.fusion.activations import ACTIVATIONS, activation
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import ACTIVATION_NAMES, Architecture, FusionLayer
from tests.reference.fusion_oracle import SIGMA, fuse

TWO_LAYERS = Architecture((FusionLayer((0, 1), 0), FusionLayer((1, 0), 1)))
WIDTHS = ((3, 2), (4, 5))


def build(
    architecture: Architecture = TWO_LAYERS,
    widths: Sequence[Sequence[int]] = WIDTHS,
    *,
    width: int = 6,
    dropout: float = 0.0,
    seed: int = 0,
) -> FusionNetwork:
    return FusionNetwork(
        architecture,
        widths,
        ACTIVATION_NAMES,
        width=width,
        n_outputs=3,
        dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    )


def rows(network: FusionNetwork, n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator) for width in network.feature_widths]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Architecture, list[list[int]]]:
    """Draw an architecture of two to four modalities, with the widths of their features."""
    widths = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=2, max_size=4))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        features = tuple(draw(st.integers(0, len(of_modality) - 1)) for of_modality in widths)
        layers.append(FusionLayer(features, draw(st.integers(0, len(ACTIVATION_NAMES) - 1))))
    return Architecture(tuple(layers)), widths


@settings(max_examples=60, deadline=None)
@given(case=cases(), width=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_logits_are_those_of_the_equations(case: tuple[Architecture, list[list[int]]], width: int, seed: int) -> None:
    architecture, widths = case
    network = build(architecture, widths, width=width, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    features = [[torch.randn(2, n, generator=generator, dtype=torch.float64) for n in ns] for ns in widths]
    read = [
        torch.cat([features[modality][index] for modality, index in enumerate(layer.features)], dim=1)
        for layer in architecture.layers
    ]
    logits_BC = network(read)
    linears = [(linear.weight.tolist(), linear.bias.tolist()) for linear in (*network.layers, network.head)]
    for sample in range(2):
        expected = fuse(
            [(layer.features, ACTIVATION_NAMES[layer.activation]) for layer in architecture.layers],
            [[tensor[sample].tolist() for tensor in of_modality] for of_modality in features],
            linears[:-1],
            linears[-1],
        )
        assert logits_BC[sample].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_every_activation_is_the_oracles(name: str) -> None:
    points = torch.linspace(-6, 6, 41, dtype=torch.float64)
    expected = [SIGMA[name](value) for value in points.tolist()]
    assert activation(name)(points).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_activations_are_those_that_a_space_can_name() -> None:
    assert tuple(ACTIVATIONS) == ACTIVATION_NAMES
    with pytest.raises(SpaceError, match="'swoosh'"):
        activation("swoosh")


def test_number_of_parameters_is_that_of_table_5() -> None:
    """Network 0 of the paper's Table 5: four layers at width 256 whose features are 7,936 wide in all."""
    widths = ((512, 1024, 2048, 1024), (512, 512, 256, 2048))
    architecture = Architecture(tuple(FusionLayer((index, index), 0) for index in range(4)))
    assert sum(map(sum, widths)) == 7_936
    network = build(architecture, widths, width=256)
    assert network.n_fusion_parameters == 2_229_248
    assert network.layer_sizes == [(1024, 256), (1792, 256), (2560, 256), (3328, 256)]


def test_keys_of_its_state() -> None:
    names = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "head.weight", "head.bias"]
    assert sorted(build().state_dict()) == sorted(names)


@pytest.mark.parametrize(
    ("widths_given", "message"),
    [([8], "features of 2 layers, found 1"), ([8, 7], "Layer 2: expected features of width 6, found 7")],
)
def test_features_of_another_shape_are_refused(widths_given: list[int], message: str) -> None:
    with pytest.raises(FusionShapeError, match=message):
        build()([torch.zeros(1, width) for width in widths_given])


@pytest.mark.parametrize("widths", [((3, 2),), ((3, 2), (4,)), ((3, 2), (4, 5), (1,))])
def test_widths_of_another_space_are_refused(widths: Sequence[Sequence[int]]) -> None:
    with pytest.raises(FusionShapeError, match="one feature of each modality"):
        build(widths=widths)


def test_weights_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        assert not torch.equal(tensor, other.state_dict()[name])


def test_first_weights_fill_the_range_of_a_linear_layer() -> None:
    network = build(Architecture((FusionLayer((0, 0), 0),)), ((60,), (40,)), width=64)
    weight = network.layers[0].weight
    bound = 100**-0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_dropout_follows_its_generator_and_keeps_the_mean() -> None:
    network = build(Architecture((FusionLayer((0, 0), 8),)), width=400, dropout=0.25)
    inputs = rows(network, 200)

    def hidden(seed: int) -> Tensor:
        seen: list[Tensor] = []
        handle = network.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        network(inputs, torch.Generator().manual_seed(seed))
        handle.remove()
        return seen[0]

    assert torch.equal(hidden(1), hidden(1))
    assert not torch.equal(hidden(1), hidden(2))
    kept = hidden(1) != 0
    network.eval()
    whole = hidden(1)
    # 80,000 draws: a fraction 0.01 off is more than six deviations away.
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.01)
    network.train()
    assert torch.allclose(hidden(1)[kept], whole[kept] / 0.75)


def test_dropout_needs_its_generator_only_when_it_drops() -> None:
    network = build(dropout=0.5)
    with pytest.raises(FusionShapeError, match="dropout_generator"):
        network(rows(network, 2))
    network.eval()
    network(rows(network, 2))
    network = build()
    network(rows(network, 2))
