"""Backbones as readable PyTorch code: a class for each, written for its sizes and for the layers that are read.

A backbone of a known kind is a row of stages; what comes after the last one that is read is left out. Submodules keep
their names, so that trained weights fit. A layer inside of a stage, and any layer of the user's own network, is read by
a hook.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mfas_optuna.errors import ExportError
from mfas_optuna.export.snippets import BOTTLENECK, COOCCURRENCE, IMAGENET, MAXOUT, READ, literal
from mfas_optuna.spec import (
    CooccurrenceSettings,
    InflatedResNetSettings,
    LeNetSettings,
    MaxoutMlpSettings,
    NetworkSettings,
    PythonBackboneSettings,
    TapSettings,
    VggSettings,
)

_VGG_STAGES = ((2, 1), (2, 2), (4, 4), (4, 8), (4, 8))
"""Convolutions of each stage of VGG-19, and how many times the width they have."""
_VGG_SIDE = 7
_EXPANSION = 4
_SHRINK = 16
OUTPUT_MODULE = ""
"""Module of a tap that reads a backbone's own output."""


@dataclass(frozen=True)
class Stage:
    """A layer of a backbone, and the code that comes to it from the one before.

    Attributes:
        name: Of the submodule that is read here.
        init: Lines of `__init__`.
        forward: Lines of `forward`, from x to x.
        children: Submodules that `init` makes.
        value: What is read, once the lines of `forward` have run.
    """

    name: str
    init: tuple[str, ...]
    forward: tuple[str, ...]
    children: tuple[str, ...]
    value: str = "x"


@dataclass(frozen=True)
class WrittenBackbone:
    """Code of a backbone.

    Attributes:
        code: Its class; empty for a network of the user's Python file.
        make: Expression that makes it.
        read: Expression of its features by name, in which `{x}` stands for the input.
        children: First parts of the names of the weights that it has; None: it has all of them.
        snippets: Code that it needs.
    """

    code: str
    make: str
    read: str
    children: frozenset[str] | None
    snippets: frozenset[str]


def write_backbone(
    settings: NetworkSettings,
    *,
    class_name: str,
    modality: str,
    attribute: str,
    file: str,
    sample_shape: Sequence[int],
    state: Mapping[str, Tensor],
    taps: Sequence[TapSettings],
) -> WrittenBackbone:
    """Return a backbone as code.

    Args:
        settings: Which network.
        class_name: What its class is called.
        modality: Which modality it reads, for people.
        attribute: Where the model keeps it.
        file: Of a network of the user's: the copied Python file.
        sample_shape: Of one sample of its input, without the batch.
        state: Its trained weights.
        taps: What is read of it.

    Raises:
        ExportError: No code is written for its kind.
    """
    if isinstance(settings, PythonBackboneSettings):
        return WrittenBackbone(
            code="",
            make=f"own_network({literal(file)}, {literal(settings.module)})",
            read=_hooks(attribute, taps),
            children=None,
            snippets=frozenset({"own", "read", "pool"}),
        )
    stages = list(_stages(settings, sample_shape, state))
    names = [stage.name for stage in stages]
    modules = [names[-1] if tap.module == OUTPUT_MODULE else tap.module for tap in taps]
    hooked = [tap for tap, module in zip(taps, modules, strict=True) if module not in names]
    if not hooked:
        stages = stages[: max(names.index(module) for module in modules) + 1]
    init = [line for stage in stages for line in stage.init]
    forward = list(_before(settings))
    for stage in stages:
        forward += stage.forward
        for tap, module in zip(taps, modules, strict=True):
            if module == stage.name:
                axis = "" if tap.channel_axis == 1 else f", {tap.channel_axis}"
                forward.append(f"features[{literal(tap.name)}] = pool({stage.value}{axis})")
    code = "\n".join(
        [
            f"class {class_name}(nn.Module):",
            f'    """{_TITLES[settings.kind]}, for {modality} of shape {tuple(sample_shape)}."""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(f"        {line}" for line in init),
            "",
            "    def forward(self, x: Tensor) -> dict[str, Tensor]:",
            '        """Return the pooled layers that the fusion reads, (B, channels) each."""',
            "        features = {}",
            *(f"        {line}" for line in forward),
            "        return features",
        ]
    )
    return WrittenBackbone(
        code=code,
        make=f"{class_name}()",
        read=_hooks(attribute, hooked) if hooked else f"self.{attribute}({{x}})",
        children=frozenset(child for stage in stages for child in stage.children),
        snippets=frozenset({"pool", *(["read"] if hooked else []), *_needs(settings)}),
    )


_TITLES = {
    "lenet": "3x3 convolutions with batch norm and ReLU, max pooling between (LeNet)",
    "vgg": "VGG-19",
    "maxout_mlp": "Maxout layers",
    "inflated_resnet": "A ResNet of bottleneck blocks, inflated in time",
    "cooccurrence": "The co-occurrence network: joints and their motion, then all joints at once",
}

SNIPPETS: Mapping[str, str] = {
    "imagenet": IMAGENET,
    "maxout": MAXOUT,
    "bottleneck": BOTTLENECK,
    "cooccurrence": COOCCURRENCE,
    "read": READ,
}
"""Code that several backbones need, by name, in the order in which it is written."""


def _needs(settings: NetworkSettings) -> Iterator[str]:
    if isinstance(settings, MaxoutMlpSettings):
        yield "maxout"
    if isinstance(settings, InflatedResNetSettings):
        yield "bottleneck"
    if isinstance(settings, CooccurrenceSettings):
        yield "cooccurrence"
    if isinstance(settings, VggSettings | InflatedResNetSettings) and settings.imagenet_inputs:
        yield "imagenet"


def _before(settings: NetworkSettings) -> Iterator[str]:
    if isinstance(settings, VggSettings | InflatedResNetSettings) and settings.imagenet_inputs:
        yield "x = scale_as_imagenet(x)"


def _hooks(attribute: str, taps: Sequence[TapSettings]) -> str:
    where = ", ".join(f"{literal(tap.name)}: ({literal(tap.module)}, {tap.channel_axis})" for tap in taps)
    return f"read(self.{attribute}, {{x}}, {{{where}}})"


def _stages(settings: NetworkSettings, shape: Sequence[int], state: Mapping[str, Tensor]) -> Iterator[Stage]:
    match settings:
        case LeNetSettings():
            return _lenet(settings, shape, state)
        case VggSettings():
            return _vgg(settings, shape, state)
        case MaxoutMlpSettings():
            return _maxout_mlp(settings, shape, state)
        case InflatedResNetSettings():
            return _inflated_resnet(settings, shape, state)
        case CooccurrenceSettings():
            return _cooccurrence(settings, shape, state)
    raise ExportError(f"No code is written for backbones of kind {settings.kind!r}.")


def _n_outputs(state: Mapping[str, Tensor], layer: str) -> int:
    return state[f"{layer}.weight"].shape[0]


def _linear(name: str, n_inputs: int, state: Mapping[str, Tensor]) -> str:
    return f"self.{name} = nn.Linear({n_inputs}, {_n_outputs(state, name)})"


def _lenet(settings: LeNetSettings, shape: Sequence[int], state: Mapping[str, Tensor]) -> Iterator[Stage]:
    channels, *sides = shape
    for index, (before, after) in enumerate(itertools.pairwise([channels, *settings.channels]), start=1):
        lines = []
        if index > 1 and min(sides) > 1:
            lines.append("x = functional.max_pool2d(x, 2)")
            sides = [side // 2 for side in sides]
        convolution = f"nn.Conv2d({before}, {after}, 3, padding=1, bias=False)"
        yield Stage(
            f"conv{index}",
            (f"self.conv{index} = nn.Sequential({convolution}, nn.BatchNorm2d({after}), nn.ReLU())",),
            (*lines, f"x = self.conv{index}(x)"),
            (f"conv{index}",),
        )
    yield Stage(
        "head", (_linear("head", settings.channels[-1], state),), ("x = self.head(x.mean(dim=(2, 3)))",), ("head",)
    )


def _vgg(settings: VggSettings, shape: Sequence[int], state: Mapping[str, Tensor]) -> Iterator[Stage]:
    before, *sides = shape
    pooling: tuple[str, ...] = ()
    for number, (n_convolutions, wider) in enumerate(_VGG_STAGES, start=1):
        for index in range(1, n_convolutions + 1):
            name, after = f"conv{number}_{index}", wider * settings.width
            yield Stage(
                name,
                (f"self.{name} = nn.Sequential(nn.Conv2d({before}, {after}, 3, padding=1), nn.ReLU())",),
                (*pooling, f"x = self.{name}(x)"),
                (name,),
            )
            before, pooling = after, ()
        if min(sides) > 1:
            pooling = ("x = functional.max_pool2d(x, 2)",)
            sides = [side // 2 for side in sides]
    n_outputs = _n_outputs(state, "classifier.6")
    yield Stage(
        "classifier",
        (
            "self.classifier = nn.Sequential(",
            f"    nn.Linear({before * _VGG_SIDE * _VGG_SIDE}, {settings.hidden}), nn.ReLU(), "
            f"nn.Dropout({settings.dropout}),",
            f"    nn.Linear({settings.hidden}, {settings.hidden}), nn.ReLU(), nn.Dropout({settings.dropout}),",
            f"    nn.Linear({settings.hidden}, {n_outputs}),",
            ")",
        ),
        (*pooling, f"x = self.classifier(functional.adaptive_avg_pool2d(x, {_VGG_SIDE}).flatten(1))"),
        ("classifier",),
    )


def _maxout_mlp(settings: MaxoutMlpSettings, shape: Sequence[int], state: Mapping[str, Tensor]) -> Iterator[Stage]:
    widths = [shape[0], *settings.hidden]
    for index, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        name = f"maxout{index}"
        sizes = f"{before}, {after}, pieces={settings.pieces}, dropout={settings.dropout}"
        yield Stage(name, (f"self.{name} = Maxout({sizes})",), (f"x = self.{name}(x)",), (name,))
    yield Stage(
        "head",
        (
            f"self.norm = nn.BatchNorm1d({widths[-1]})",
            f"self.dropout = nn.Dropout({settings.dropout})",
            _linear("head", widths[-1], state),
        ),
        ("x = self.head(self.dropout(self.norm(x)))",),
        ("norm", "dropout", "head"),
    )


def _inflated_resnet(
    settings: InflatedResNetSettings, shape: Sequence[int], state: Mapping[str, Tensor]
) -> Iterator[Stage]:
    width = settings.width
    stem: tuple[str, ...] = (
        f"self.conv1 = nn.Conv3d({shape[0]}, {width}, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)",
        f"self.bn1 = nn.BatchNorm3d({width})",
        "self.relu = nn.ReLU()",
        "self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))",
    )
    lines: tuple[str, ...] = ("x = self.maxpool(self.relu(self.bn1(self.conv1(x))))",)
    children: tuple[str, ...] = ("conv1", "bn1", "relu", "maxpool")
    before = width
    for index, n_blocks in enumerate(settings.blocks):
        name, channels, stride = f"layer{index + 1}", width * 2**index, 1 if index == 0 else 2
        blocks = [f"    Bottleneck({before}, {channels}, stride={stride}, changes_shape=True),"]
        before = _EXPANSION * channels
        blocks += [f"    Bottleneck({before}, {channels}),"] * (n_blocks - 1)
        yield Stage(
            name,
            (*stem, f"self.{name} = nn.Sequential(", *blocks, ")"),
            (*lines, f"x = self.{name}(x)"),
            (*children, name),
        )
        stem = lines = children = ()
    yield Stage("fc", (_linear("fc", before, state),), ("x = self.fc(x.mean(dim=(2, 3, 4)))",), ("fc",))


def _cooccurrence(settings: CooccurrenceSettings, shape: Sequence[int], state: Mapping[str, Tensor]) -> Iterator[Stage]:
    channels, n_frames, n_joints, _ = shape
    width, dropout = settings.width, settings.dropout
    sizes = f"{channels}, {n_joints}, {width}, {dropout}"
    yield Stage(
        "conv5",
        (
            f"self.joints = Stream({sizes})",
            f"self.motion = Stream({sizes})",
            f"self.person5 = joined({2 * width}, {2 * width}, {dropout})",
        ),
        (
            "n_persons = x.shape[4]",
            "x = x.movedim(4, 1).flatten(0, 1)  # Each person alone.",
            "x = self.person5(torch.cat([self.joints(x), self.motion(motion(x))], dim=1))",
        ),
        ("joints", "motion", "person5"),
        value="largest(x, n_persons)",
    )
    yield Stage(
        "conv6",
        (f"self.person6 = joined({2 * width}, {4 * width}, {dropout})",),
        ("x = largest(self.person6(x), n_persons)",),
        ("person6",),
    )
    yield Stage("flat", (), ("x = x.flatten(1)",), ())
    n_positions = -(-n_frames // _SHRINK) * -(-(width // 2) // _SHRINK)
    linear = f"nn.Linear({4 * width * n_positions}, {8 * width})"
    yield Stage(
        "fc7",
        (f"self.fc7 = nn.Sequential({linear}, nn.ReLU(), nn.Dropout({dropout}))",),
        ("x = self.fc7(x)",),
        ("fc7",),
    )
    yield Stage("fc8", (_linear("fc8", 8 * width, state),), ("x = self.fc8(x)",), ("fc8",))
