"""The joint group against the same networks one by one, in double precision: logits, gradients, and whole trainings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.activations import ACTIVATIONS, IN_PLACE
from mfas_optuna.fusion.joint import JointFusion
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import ACTIVATION_NAMES, Architecture, FusionLayer

WIDTHS = ((3, 2, 4), (4, 1))
N_CLASSES = 3


def columns(modality: int, feature: int) -> slice:
    flat = [width for of_modality in WIDTHS for width in of_modality]
    position = feature + sum(len(of_modality) for of_modality in WIDTHS[:modality])
    return slice(sum(flat[:position]), sum(flat[: position + 1]))


def reads_of(architecture: Architecture) -> list[list[tuple[slice, ...]]]:
    return [
        [(columns(modality, feature),) for modality, feature in enumerate(layer.features)]
        for layer in architecture.layers
    ]


def make_networks(
    architectures: Sequence[Architecture], *, width: int = 4, dropout: float = 0.0, dtype: torch.dtype = torch.float64
) -> list[FusionNetwork]:
    return [
        FusionNetwork(
            architecture, WIDTHS, ACTIVATION_NAMES, width=width, n_outputs=N_CLASSES, dropout=dropout,
            generator=torch.Generator().manual_seed(index),
        ).to(dtype)
        for index, architecture in enumerate(architectures)
    ]  # fmt: skip


def make_group(networks: Sequence[FusionNetwork], architectures: Sequence[Architecture]) -> JointFusion:
    return JointFusion(networks, [reads_of(architecture) for architecture in architectures])


def rows(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n_columns = sum(map(sum, WIDTHS))
    labels = torch.randint(N_CLASSES, (n,), generator=generator)
    return torch.randn(n, n_columns, generator=generator, dtype=torch.float64).to(dtype), labels


def alone(
    network: FusionNetwork, architecture: Architecture, rows_BF: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    read = [torch.cat([rows_BF[:, part] for (part,) in parts], dim=1) for parts in reads_of(architecture)]
    return network(read, generator)


@st.composite
def architecture_lists(draw: st.DrawFn) -> list[Architecture]:
    """Draw one to six networks of depth one to four, of any mix of features and activations."""

    def layer() -> FusionLayer:
        features = tuple(draw(st.integers(0, len(of_modality) - 1)) for of_modality in WIDTHS)
        return FusionLayer(features, draw(st.integers(0, len(ACTIVATION_NAMES) - 1)))

    return [
        Architecture(tuple(layer() for _ in range(draw(st.integers(1, 4))))) for _ in range(draw(st.integers(1, 6)))
    ]


@settings(max_examples=60, deadline=None)
@given(architectures=architecture_lists(), width=st.integers(1, 5), n=st.integers(1, 4))
def test_logits_and_gradients_are_those_of_each_network_alone(
    architectures: list[Architecture], width: int, n: int
) -> None:
    networks = make_networks(architectures, width=width)
    group = make_group(networks, architectures)
    rows_BF, labels_B = rows(n)
    logits_NCB = group.forward(rows_BF)
    losses_N = functional.cross_entropy(logits_NCB, labels_B.expand(len(networks), -1), reduction="none").mean(dim=1)
    losses_N.sum().backward()
    assert group.flat.grad is not None
    gradients = group.unpack(group.flat.grad)
    group.flat.grad.fill_(99.0)  # What was there before does not matter.
    assert torch.allclose(group.gradient(rows_BF, labels_B), losses_N, rtol=0, atol=1e-12)
    by_hand = group.unpack(group.flat.grad)
    for network, architecture, logits_CB, gradient, hand in zip(
        networks, architectures, logits_NCB, gradients, by_hand, strict=True
    ):
        expected_BC = alone(network, architecture, rows_BF)
        assert torch.allclose(logits_CB.t(), expected_BC, rtol=0, atol=1e-12)
        functional.cross_entropy(expected_BC, labels_B).backward()
        for name, parameter in network.named_parameters():
            assert torch.allclose(gradient[name], parameter.grad, rtol=0, atol=1e-12), name
            assert torch.allclose(hand[name], parameter.grad, rtol=0, atol=1e-12), name


def train_alone(
    network: FusionNetwork, architecture: Architecture, batches: list[Tensor], data: tuple[Tensor, Tensor], seed: int
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2, fused=True)
    for batch in batches:
        optimizer.zero_grad()
        logits_BC = alone(network, architecture, data[0][batch], generator)
        functional.cross_entropy(logits_BC, data[1][batch]).backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def train_together(
    group: JointFusion, batches: list[Tensor], data: tuple[Tensor, Tensor], seeds: Sequence[int]
) -> list[dict[str, Tensor]]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    optimizer = torch.optim.AdamW([group.flat], lr=1e-2, weight_decay=1e-2, fused=True)
    for batch in batches:
        group.gradient(data[0][batch], data[1][batch], generators)
        optimizer.step()
    return group.states()


@settings(max_examples=15, deadline=None)
@given(architectures=architecture_lists(), dropout=st.sampled_from([0.0, 0.4]))
def test_a_joint_training_is_each_training_alone(architectures: list[Architecture], dropout: float) -> None:
    """Same start, batches and masks: equal to 1e-10 after 40 steps of Adam in double precision."""
    data = rows(100)
    order = torch.Generator().manual_seed(7)
    batches = [torch.randint(100, (16,), generator=order) for _ in range(40)]
    networks = make_networks(architectures, dropout=dropout)
    together = train_together(make_group(networks, architectures), batches, data, range(len(networks)))
    for index, (network, architecture) in enumerate(zip(networks, architectures, strict=True)):
        expected = train_alone(network, architecture, batches, data, seed=index)
        for name, tensor in expected.items():
            assert torch.allclose(together[index][name], tensor, rtol=0, atol=1e-10), name


def test_gradients_with_dropout_are_those_of_autograd() -> None:
    architectures = [
        Architecture((FusionLayer((0, 1), 0), FusionLayer((2, 1), 1))), Architecture((FusionLayer((1, 0), 1),))
    ]  # fmt: skip
    networks = make_networks(architectures, dropout=0.5)
    group = make_group(networks, architectures)
    rows_BF, labels_B = rows(32)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    losses = functional.cross_entropy(group.forward(rows_BF, generators()), labels_B.expand(2, -1), reduction="sum")
    (losses / 32).backward()
    assert group.flat.grad is not None
    expected = group.flat.grad.clone()
    group.gradient(rows_BF, labels_B, generators())
    assert torch.allclose(group.flat.grad, expected, rtol=0, atol=1e-12)


MIXED = [
    Architecture((FusionLayer((0, 1), 0), FusionLayer((0, 1), 1), FusionLayer((0, 0), 0))),
    Architecture((FusionLayer((2, 0), 1),)),
    Architecture((FusionLayer((1, 0), 3), FusionLayer((0, 1), 0))),
]


def test_gradients_are_the_same_bit_for_bit_whatever_was_asked_before() -> None:
    """The buffers keep nothing: not of another number of rows, nor of other rows, nor of masks."""
    networks = make_networks(MIXED, dropout=0.5, dtype=torch.float32)
    fresh, used = make_group(networks, MIXED), make_group(networks, MIXED)
    rows_BF, labels_B = rows(16, dtype=torch.float32)
    assert used.flat.grad is not None
    assert fresh.flat.grad is not None
    expected = fresh.gradient(rows_BF, labels_B), fresh.flat.grad
    used.gradient(*rows(16, seed=1, dtype=torch.float32), [torch.Generator().manual_seed(seed) for seed in range(3)])
    used.gradient(*rows(5, seed=2, dtype=torch.float32))
    used.gradient(*rows(16, seed=3, dtype=torch.float32))
    losses_N = used.gradient(rows_BF, labels_B)
    assert torch.equal(losses_N, expected[0])
    assert torch.equal(used.flat.grad, expected[1])


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_in_place_are_those_of_autograd(name: str, dtype: torch.dtype) -> None:
    z = torch.linspace(-30, 30, 601, dtype=dtype, requires_grad=True)
    d = torch.randn(601, generator=torch.Generator().manual_seed(0), dtype=dtype)
    expected = ACTIVATIONS[name](z)
    (slope,) = torch.autograd.grad(expected, z, d)
    h, sigma = torch.empty_like(expected), IN_PLACE[name]
    with torch.no_grad():
        sigma.apply(z, h)
        assert torch.equal(h, expected)
        sigma.multiply_by_slope(d, z, h)
        assert torch.equal(d, slope)


@pytest.mark.parametrize(
    "parts", [[(slice(0, 3),), (slice(3, 5),), (slice(6, 10),)], [(slice(2, 6),), (slice(2, 6),), (slice(4, 7),)]]
)
def test_three_modalities_even_of_the_same_columns(parts: list[tuple[slice, ...]]) -> None:
    widths = [[part.stop - part.start] for (part,) in parts]
    architectures = [Architecture((FusionLayer((0, 0, 0), depth % 2),) * (depth + 1)) for depth in range(3)]
    networks = [
        FusionNetwork(
            architecture, widths, ["tanh", "relu"], width=4, n_outputs=N_CLASSES,
            generator=torch.Generator().manual_seed(index),
        ).double()
        for index, architecture in enumerate(architectures)
    ]  # fmt: skip
    group = JointFusion(networks, [[parts] * architecture.depth for architecture in architectures])
    rows_BF, labels_B = rows(7)
    losses_N = group.gradient(rows_BF, labels_B)
    assert group.flat.grad is not None
    for network, loss, gradient in zip(networks, losses_N, group.unpack(group.flat.grad), strict=True):
        read_BF = torch.cat([rows_BF[:, part] for (part,) in parts], dim=1)
        expected = functional.cross_entropy(network([read_BF] * len(network.layers)), labels_B)
        expected.backward()
        assert torch.allclose(loss, expected, rtol=0, atol=1e-12)
        for name, parameter in network.named_parameters():
            assert torch.allclose(gradient[name], parameter.grad, rtol=0, atol=1e-12), name


def test_parameters_there_and_back() -> None:
    architectures = [
        Architecture((FusionLayer((0, 1), 0), FusionLayer((0, 1), 1))), Architecture((FusionLayer((0, 1), 0),))
    ]  # fmt: skip
    networks = make_networks(architectures)
    group = make_group(networks, architectures)
    for network, state in zip(networks, group.states(), strict=True):
        assert state.keys() == network.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    n_parameters = sum(parameter.numel() for network in networks for parameter in network.parameters())
    assert group.flat.numel() == n_parameters
    assert torch.equal(group.pack(group.states()), group.flat)


def test_a_network_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    architectures = [Architecture((FusionLayer((0, 0), 0), FusionLayer((1, 1), 1)))] * 3
    networks = make_networks(architectures)
    data = rows(64)
    batches = [torch.arange(16) + 16 * (step % 4) for step in range(10)]
    sound = train_together(make_group(networks, architectures), batches, data, range(3))
    with torch.no_grad():
        networks[1].layers[0].weight[0, 0] = float("nan")
    spoilt = train_together(make_group(networks, architectures), batches, data, range(3))
    assert not spoilt[1]["head.weight"].isfinite().all()
    for index in (0, 2):
        assert all(torch.equal(spoilt[index][name], sound[index][name]) for name in sound[index])


def test_what_cannot_be_a_group_is_refused() -> None:
    architecture = Architecture((FusionLayer((0, 0), 0),))
    with pytest.raises(FusionShapeError, match="0 networks"):
        JointFusion([], [])
    networks = [*make_networks([architecture], width=4), *make_networks([architecture], width=5)]
    with pytest.raises(FusionShapeError, match="one fusion width"):
        make_group(networks, [architecture] * 2)
    with pytest.raises(FusionShapeError, match="Expected columns of widths"):
        JointFusion(networks[:1], [[[(slice(0, 2),), (slice(3, 5),)]]])
