"""Backbones and head as one network: its rows are those of the feature cache, and nothing of it leaks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.errors import FusionShapeError, TapError
from mfas_optuna.features.build import Source, build_features
from mfas_optuna.features.cache import OUTPUT, FeatureLayout, FeatureSet, open_features
from mfas_optuna.fusion.head import Head, NetworkSettings
from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.spec import LeNetSettings
from mfas_optuna.target import Target, TargetKind
from mfas_optuna.training.brief import standardized_rows
from mfas_optuna.training.fused import FusedModel
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.scoring import Batches

CPU = torch.device("cpu")
SIZES = {"train": 240, "validation": 90, "test": 60}
NAMES = ("image", "values", "type")  # The last two are attributes of nn.ModuleDict.


def make_split(n: int, modalities: Sequence[str], kind: TargetKind) -> Split:
    """Bars in noise; whether that of modality i is a row is bit i of the class, or label i, or value i in odd units."""
    rng = np.random.default_rng([n, len(modalities)])
    is_row = rng.integers(0, 2, (n, len(modalities)))
    inputs = {}
    for number, modality in enumerate(modalities):
        images = rng.random((n, 1, 8, 8)) * 0.5
        for row in range(n):
            position = rng.integers(8)
            bar = (position, slice(None)) if is_row[row, number] else (slice(None), position)
            images[row, 0][bar] += 0.5
        inputs[modality] = (images * 255).astype(np.uint8)
        inputs[modality].setflags(write=False)
    if kind == "multiclass":
        return Split(inputs, (is_row @ (2 ** np.arange(len(modalities)))).astype(np.int64))
    if kind == "multilabel":
        return Split(inputs, is_row.astype(np.uint8))
    return Split(inputs, (1000 + 50 * is_row).astype(np.float32))


def make_dataset(n_modalities: int = 2, kind: TargetKind = "multiclass") -> Dataset:
    modalities = NAMES[:n_modalities]
    splits = {name: make_split(n, modalities, kind) for name, n in SIZES.items()}
    target = Target.of_classes(2**n_modalities) if kind == "multiclass" else Target(kind, modalities)
    return Dataset("bars", "Bars.", target, splits, "0" * 64)


def make_sources(dataset: Dataset, outputs: Sequence[str] = ()) -> dict[str, Source]:
    """A small LeNet for each modality; of those in `outputs` its own output is tapped too."""
    sources = {}
    for number, modality in enumerate(dataset.modalities):
        model = build_backbone(
            LeNetSettings(kind="lenet", channels=[4, 8], features=["conv1", "conv2"]),
            sample_shape=(1, 8, 8),
            n_outputs=dataset.target.n_outputs,
            generator=torch.Generator().manual_seed(number),
            folder=Path(),
        )
        taps = [Tap("first", "conv1"), Tap("second", "conv2")]
        sources[modality] = Source(
            model.eval().requires_grad_(False), [*taps, *([Tap(OUTPUT, "")] if modality in outputs else [])]
        )
    return sources


def make_layout(dataset: Dataset, outputs: Sequence[str] = ()) -> FeatureLayout:
    n_outputs = dataset.target.n_outputs
    return FeatureLayout.of_widths(
        {
            modality: {"first": 4, "second": 8, **({OUTPUT: n_outputs} if modality in outputs else {})}
            for modality in dataset.modalities
        }
    )


def make_head(dataset: Dataset, layout: FeatureLayout, dropout: float = 0.0) -> Head:
    n = len(dataset.modalities)
    space = SearchSpace({modality: ["first", "second"] for modality in dataset.modalities}, ["relu", "sigmoid"], 2)
    architecture = Architecture.from_paper_notation(f"[({'1,' * n}1),({'2,' * n}1)]")
    settings = NetworkSettings.of(architecture, space, 12)
    generator = torch.Generator().manual_seed(7)
    return settings.build(layout, dataset.target.n_outputs, dropout=dropout, generator=generator)


def make_model(dataset: Dataset, outputs: Sequence[str] = (), dropout: float = 0.0) -> FusedModel:
    layout = make_layout(dataset, outputs)
    return FusedModel(
        make_sources(dataset, outputs),
        layout,
        make_head(dataset, layout, dropout),
        n_outputs=dataset.target.n_outputs,
        generator=torch.Generator().manual_seed(9),
    )


def inputs_of(dataset: Dataset, split: str = "validation") -> dict[str, Tensor]:
    scale = LabelScale.of_units(dataset.target.kind)
    rows = torch.arange(SIZES[split])
    return {name: Batches(dataset.splits[split], name, scale, CPU).take(rows)[0] for name in dataset.modalities}


def n_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def cached(tmp_path: Path) -> tuple[Dataset, FeatureSet]:
    dataset = make_dataset()
    sources = make_sources(dataset, outputs=["values"])
    build_features(tmp_path / "features", dataset, sources, key={"of": "bars"}, device=CPU)
    return dataset, open_features(tmp_path / "features", {"of": "bars"}, rebuild_command="rebuild")


@pytest.mark.parametrize("standardize", [False, True])
def test_rows_are_those_of_the_cache(cached: tuple[Dataset, FeatureSet], standardize: bool) -> None:
    dataset, features = cached
    model = FusedModel(
        make_sources(dataset, outputs=["values"]),
        features.layout,
        make_head(dataset, features.layout),
        n_outputs=4,
        generator=torch.Generator().manual_seed(0),
        standardization=features.layout.standardization(features.mean, features.std) if standardize else None,
    ).eval()
    rows_NF = standardized_rows(features, "validation", standardize=standardize)
    inputs = inputs_of(dataset)
    with torch.no_grad():
        outputs = model(inputs)
        found_NF = model.rows(inputs)
    assert features.matrix("train").dtype == np.float16
    # Half precision keeps 11 bits; a column is some ten deviations from zero at most.
    torch.testing.assert_close(found_NF, rows_NF, rtol=2e-3, atol=2e-2 if standardize else 1e-3)
    assert torch.equal(outputs.fused_BC, model.head(found_NF).fused_BC)
    assert torch.equal(outputs.own["values"], model.backbone("values")(inputs["values"]))
    last_BF = found_NF[:, features.layout.columns("image", "second")]
    assert torch.equal(outputs.own["image"], model.own_heads["of_image"](last_BF))
    assert outputs.auxiliary == ()


def test_rows_of_frozen_backbones_are_those_of_the_network_bit_for_bit() -> None:
    dataset = make_dataset(3)
    model, inputs = make_model(dataset).eval(), inputs_of(dataset)
    for modality in NAMES:
        features = model.backbone(modality).conv1(inputs[modality]).mean(dim=(2, 3))
        assert torch.equal(model.rows(inputs)[:, model.layout.columns(modality, "first")], features)


def test_names_of_weights_are_stable() -> None:
    model = make_model(make_dataset(), outputs=["values"])
    names = set(model.state_dict())
    assert {"shift_F", "scale_F", "own_heads.of_image.weight", "own_heads.of_image.bias"} < names
    assert {"backbones.of_image.conv1.0.weight", "backbones.of_values.head.bias", "head.network.head.weight"} < names
    assert not any(name.startswith("own_heads.of_values") for name in names)
    backbones = {id(parameter) for parameter in model.backbones.parameters()}
    head = {id(parameter) for parameter in model.head_parameters()}
    assert not backbones & head
    assert len(backbones | head) == len(list(model.parameters()))


def test_new_layers_follow_from_the_generator() -> None:
    first, again = (make_model(make_dataset()).own_heads["of_image"].weight for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().max() <= 8**-0.5
    assert first.std() > 0.1


def test_nothing_stays_hooked_and_copies_stand_alone() -> None:
    dataset = make_dataset()
    model, inputs = make_model(dataset).eval(), inputs_of(dataset)
    expected = model(inputs).fused_BC
    assert n_hooks(model) == 0
    copied = copy.deepcopy(model)
    fresh = make_model(dataset).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(copied(inputs).fused_BC, expected)
    assert not torch.equal(model(inputs).fused_BC, expected)
    fresh.load_state_dict(copied.state_dict())
    assert torch.equal(fresh(inputs).fused_BC, expected)

    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("broken")

    model.backbone("values").forward = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken"):
        model(inputs)
    assert n_hooks(model) == 0


class WritesOver(nn.Module):
    """A user's network: what is tapped is written over afterwards, and the channels are last."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(3)
            self.tokens = nn.Linear(8, 4)
            self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x[:, 0])
        result: Tensor = self.head(torch.relu_(tokens).mean(dim=1))
        return result


def test_networks_of_users_with_channels_last_and_in_place_activations() -> None:
    dataset = make_dataset()
    sources = {**make_sources(dataset), "image": Source(WritesOver(), [Tap("tokens", "tokens", -1), Tap(OUTPUT, "")])}
    layout = FeatureLayout.of_widths({"image": {"tokens": 4, OUTPUT: 4}, "values": {"first": 4, "second": 8}})
    space = SearchSpace({"image": ["tokens"], "values": ["first"]}, ["relu"], 1)
    settings = NetworkSettings.of(Architecture.from_paper_notation("[(1,1,1)]"), space, 5)
    head = settings.build(layout, 4, dropout=0.0, generator=torch.Generator().manual_seed(0))
    model = FusedModel(sources, layout, head, n_outputs=4, generator=torch.Generator().manual_seed(0))
    inputs = inputs_of(dataset)
    network = model.backbone("image")
    tokens = network.tokens(inputs["image"][:, 0]).mean(dim=1)
    assert torch.equal(model.rows(inputs)[:, :4], tokens)
    assert (tokens < 0).any()  # So the activation came after.
    outputs = model(inputs)
    (outputs.fused_BC.sum() + outputs.own["image"].sum()).backward()
    assert network.tokens.weight.grad is not None
    assert network.head.weight.grad is not None


def test_values_in_units_of_the_labels_are_standardised() -> None:
    dataset = make_dataset(kind="regression")
    layout = make_layout(dataset, ["image"])
    scale = LabelScale.of("regression", dataset.splits["train"].labels)
    arguments = {"n_outputs": 2, "generator": torch.Generator().manual_seed(0)}
    sources, head = make_sources(dataset, ["image"]), make_head(dataset, layout)
    model = FusedModel(sources, layout, head, units={"image": scale}, **arguments).eval()  # type: ignore[arg-type]
    inputs = inputs_of(dataset)
    expected = (model.backbone("image")(inputs["image"]).numpy() - scale.mean_C) / scale.std_C
    np.testing.assert_allclose(model(inputs).own["image"].detach().numpy(), expected, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    dataset = make_dataset()
    layout = make_layout(dataset)
    head, sources = make_head(dataset, layout), make_sources(dataset)
    generator = torch.Generator()
    with pytest.raises(FusionShapeError, match=r"Expected the features .* found taps of .*\(output\)"):
        FusedModel(make_sources(dataset, ["image"]), layout, head, n_outputs=4, generator=generator)
    with pytest.raises(FusionShapeError, match="Expected the features"):
        FusedModel(dict(reversed(sources.items())), layout, head, n_outputs=4, generator=generator)
    with pytest.raises(FusionShapeError, match="image: expected an output of width 3, found 4"):
        FusedModel(
            make_sources(dataset, ["image"]), make_layout(dataset, ["image"]), head, n_outputs=3, generator=generator
        )
    wide = FeatureLayout.of_widths({name: {"first": 4, "second": 9} for name in dataset.modalities})
    model = FusedModel(sources, wide, head, n_outputs=4, generator=generator)
    with pytest.raises(FusionShapeError, match="image, feature second: expected width 9, found 8"):
        model(inputs_of(dataset))
    with pytest.raises(FusionShapeError, match="inputs of image, values, found none of values"):
        make_model(dataset)({"image": inputs_of(dataset)["image"]})
    missing = {name: Source(source.model, [Tap("first", "conv1"), Tap("second", "conv3")]) for name, source in
               sources.items()}  # fmt: skip
    with pytest.raises(TapError, match=r"no submodule 'conv3'"):
        FusedModel(missing, layout, head, n_outputs=4, generator=generator)(inputs_of(dataset))
