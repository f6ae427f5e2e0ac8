"""Networks of the extended space against plain formulas, alone and in a group; their width under a budget."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mfas_optuna.errors import FusionShapeError
from mfas_optuna.fusion.losses import Loss
from mfas_optuna.fusion.mixed import MixedFusion
from mfas_optuna.fusion.network import FusionNetwork, width_within
from mfas_optuna.space import Architecture, ExtendedSpace
from tests.reference.fusion_oracle import extended_outputs

FEATURES = {"audio": ["a1", "a2", "a3"], "image": ["i1", "i2"], "text": ["t1"]}
SPACE = ExtendedSpace(FEATURES, ["relu", "tanh", "identity"], max_depth=3).ranked({
    "audio": [0.1, 0.3, 0.2, 0, 0, 0], "image": [0.2, 0.1, 0, 0], "text": [0.5, 0],
})  # fmt: skip
COLUMNS = {
    "a1": slice(0, 2), "a2": slice(2, 5), "a3": slice(5, 6), "i1": slice(6, 10), "i2": slice(10, 12),
    "t1": slice(12, 15),
}  # fmt: skip
N_COLUMNS, N_OUTPUTS = 15, 4
WIDTHS = [
    [sum(COLUMNS[name].stop - COLUMNS[name].start for name in SPACE.members(modality, choice))
     for choice in range(len(choices))]
    for modality, choices in SPACE.choices.items()
]  # fmt: skip


def reads_of(architecture: Architecture) -> list[list[tuple[slice, ...]]]:
    return [
        [
            tuple(COLUMNS[name] for name in SPACE.members(modality, choice))
            for modality, choice in zip(SPACE.choices, layer.features, strict=True)
        ]
        for layer in architecture.layers
    ]


def build(architecture: Architecture, width: int = 3, *, seed: int = 0, dropout: float = 0.0) -> FusionNetwork:
    return FusionNetwork(
        architecture, WIDTHS, SPACE.activations, width=width, n_outputs=N_OUTPUTS, dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    ).double()  # fmt: skip


def parts_of(architecture: Architecture, rows_BF: Tensor) -> list[list[Tensor]]:
    return [
        [torch.cat([rows_BF[:, columns] for columns in slices], dim=1) for slices in of_layer if slices]
        for of_layer in reads_of(architecture)
    ]


def rows(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(N_OUTPUTS, (n,), generator=generator)
    return torch.randn(n, N_COLUMNS, generator=generator, dtype=torch.float64), labels


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    depth = draw(st.integers(1, 3))
    first = sum(SPACE.size_at(shallower) for shallower in range(1, depth))
    return SPACE.architecture(first + draw(st.integers(0, SPACE.size_at(depth) - 1)))


@settings(deadline=None, max_examples=150)
@given(architecture=architectures(), width=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_outputs_are_those_of_the_formulas(architecture: Architecture, width: int, seed: int) -> None:
    network, (rows_BF, _) = build(architecture, width, seed=seed), rows(3, seed)
    outputs = network.outputs(parts_of(architecture, rows_BF))
    state = {name: tensor.tolist() for name, tensor in network.state_dict().items()}
    layers = [(SPACE.operators[layer.operator], SPACE.activations[layer.activation]) for layer in architecture.layers]
    for row in range(3):
        parts = [[part[row].tolist() for part in of_layer] for of_layer in parts_of(architecture, rows_BF)]
        fused, auxiliary = extended_outputs(layers, parts, state, is_dense=architecture.output == 1)
        assert outputs.fused_BC[row].tolist() == pytest.approx(fused)
        assert [each[row].tolist() for each in outputs.auxiliary] == [pytest.approx(each) for each in auxiliary]
    assert torch.equal(network(parts_of(architecture, rows_BF)), outputs.fused_BC)


def named(text: str) -> Architecture:
    return SPACE.from_notation(text)


def test_towers_that_are_supervised_have_outputs_of_their_own() -> None:
    for text, n_auxiliary, n_own in (
        ("towers(a1,i1,none;relu)", 0, 0),
        ("supervised_towers(a1,i1,none;relu)", 2, 0),
        ("supervised_towers(a1,i1,t1;relu) > product(a1,none,none;tanh)", 3, 1),
        ("supervised_towers(a1,i1,t1;relu) > product(a1,none,none;tanh) > all", 3, 0),
        ("concatenation(a1,i1,t1;relu) > supervised_towers(a1,none,none;tanh)", 2, 0),
    ):
        network = build(named(text))
        assert len(network.outputs(parts_of(named(text), rows(2)[0])).auxiliary) == n_auxiliary, text
        assert len(network.auxiliary) == n_own, text


def test_towers_outputs_add_up_to_the_networks() -> None:
    """The shares of two towers add up to the output, whose bias counts once."""
    architecture = named("supervised_towers(all,all,none;tanh)")
    network = build(architecture)
    outputs = network.outputs(parts_of(architecture, rows(5)[0]))
    assert torch.allclose(sum(outputs.auxiliary) - network.head.bias, outputs.fused_BC)


GROUP = [
    "concatenation(all,all,t1;relu)",
    "concatenation(all,none,t1;relu) > concatenation(none,none,none;tanh)",
    "supervised_towers(best2,i1,none;tanh) > product(none,i2,none;identity)",
    "gate(a1,i2,t1;tanh) > towers(none,none,t1;relu) > supervised_towers(a3,i1,none;relu) > all",
    "product(a1,i1,t1;identity)",
]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_a_group_is_what_its_networks_are_alone(kind: str, dropout: float) -> None:
    chosen = [named(text) for text in GROUP]
    networks = [build(each, number + 1, seed=number, dropout=dropout) for number, each in enumerate(chosen)]
    loss = Loss(kind)  # type: ignore[arg-type]
    group = MixedFusion(networks, [reads_of(each) for each in chosen], loss, auxiliary_weight=0.5)
    rows_BF, labels = rows(6)
    targets = labels if kind == "multiclass" else torch.randn(6, N_OUTPUTS, dtype=torch.float64)
    losses_N = group.gradient(rows_BF, targets, [torch.Generator().manual_seed(number) for number in range(5)])
    assert group.flat.grad is not None
    gradients = group.unpack(group.flat.grad)
    for number, (network, architecture) in enumerate(zip(networks, chosen, strict=True)):
        outputs = network.outputs(parts_of(architecture, rows_BF), torch.Generator().manual_seed(number))
        expected = loss(outputs.fused_BC, targets)
        if outputs.auxiliary:
            expected = expected + 0.5 * torch.stack([loss(each, targets) for each in outputs.auxiliary]).mean()
        expected.backward()  # type: ignore[no-untyped-call]
        assert torch.allclose(losses_N[number], expected, rtol=0, atol=1e-12)
        for name, parameter in network.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.allclose(gradients[number][name], grad, rtol=0, atol=1e-12), (GROUP[number], name)
        with torch.no_grad():
            alone = network.eval()(parts_of(architecture, rows_BF))
        assert torch.allclose(group.forward(rows_BF)[number].t(), alone, rtol=0, atol=1e-12)


def test_states_go_in_and_out() -> None:
    chosen = [named(text) for text in GROUP]
    networks = [build(each, seed=number) for number, each in enumerate(chosen)]
    group = MixedFusion(networks, [reads_of(each) for each in chosen])
    for network, state in zip(networks, group.states(), strict=True):
        network.load_state_dict(state)
    with torch.no_grad():
        group.flat.add_(1.0)
    for network, of_group, state in zip(networks, group.networks, group.states(), strict=True):
        for name, parameter in network.named_parameters():
            assert torch.equal(state[name], parameter + 1)
            assert torch.equal(dict(of_group.named_parameters())[name], parameter + 1)
    assert torch.equal(group.pack(group.states()), group.flat)


def test_a_group_of_columns_that_do_not_fit() -> None:
    with pytest.raises(FusionShapeError, match=r"Expected columns of widths \[\[2, 4, 3\]\], found \[\[2, 4\]\]"):
        MixedFusion([build(named("product(a1,i1,t1;relu)"))], [[[(slice(0, 2),), (slice(6, 10),), ()]]])
    with pytest.raises(FusionShapeError, match="found 0 networks"):
        MixedFusion([], [])


@pytest.mark.parametrize("text", GROUP)
def test_the_widest_network_within_a_budget(text: str) -> None:
    width = width_within(500, lambda width: build(named(text), width))
    assert build(named(text), width).n_parameters <= 500 < build(named(text), width + 1).n_parameters


def test_a_budget_that_no_width_meets() -> None:
    with pytest.raises(FusionShapeError, match=r"budget of 20 parameters: it has 22 with a width of 1"):
        width_within(20, lambda width: build(named("product(all,all,none;relu)"), width))


def test_what_a_layer_reads_is_checked() -> None:
    network = build(named("product(a1,i1,none;relu)"))
    wrong: Sequence[Sequence[Tensor]] = [[torch.zeros(2, 2), torch.zeros(2, 3)]]
    with pytest.raises(FusionShapeError, match=r"Layer 1: expected parts of widths \[2, 4\], found \[2, 3\]"):
        network(wrong)


def test_the_loss_of_a_group_is_of_classes_unless_told() -> None:
    architecture = named("gate(a1,i1,none;tanh)")
    network, (rows_BF, labels) = build(architecture), rows(4)
    losses_N = MixedFusion([network], [reads_of(architecture)]).gradient(rows_BF, labels)
    logits = network(parts_of(architecture, rows_BF))
    assert losses_N.item() == pytest.approx(functional.cross_entropy(logits, labels).item())
