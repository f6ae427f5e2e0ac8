"""Settings of each kind of backbone, and of its training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from mfas_optuna.spec.base import Seed, Settings

Width = Annotated[int, Field(ge=1)]


class UnimodalTraining(Settings):
    """How one backbone is trained on its own modality."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(default=64, ge=1)
    """Samples a step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW under a one-cycle schedule."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW's decoupled weight decay."""
    seed: Seed = 0
    """Seed of the initial weights, of the order of samples and of dropout."""


class TapSettings(Settings):
    """A submodule whose output is a feature, where more must be said than its name."""

    module: str
    """Dotted name of the submodule; `mfas-optuna taps` lists them."""
    name: str
    """Name of the feature."""
    channel_axis: int = 1
    """Axis of its output that holds the channels, the batch being axis 0; -1 for transformers."""


class Backbone(Settings):
    """What all kinds of backbones have in common."""

    absent_by_default: ClassVar[frozenset[str]] = frozenset({"task", "weights", "training"})

    features: list[str | TapSettings] = Field(min_length=1)
    """Submodules whose pooled outputs the search may choose (M or N of the paper is their number): names, or tables
    with `module`, `name` and `channel_axis`."""
    task: str | None = None
    """What it is trained for, one of the data set's tasks; absent: the study's own target."""
    weights: str | None = None
    """File of trained weights (.safetensors, or .pt of tensors), relative to the study file: it is not trained."""

    @property
    def taps(self) -> list[TapSettings]:
        """The features, each with module and channel axis."""
        return [
            TapSettings(module=feature, name=feature) if isinstance(feature, str) else feature
            for feature in self.features
        ]


class TrainedBackbone(Backbone):
    """A backbone of a kind that this program can train."""

    training: UnimodalTraining = UnimodalTraining()
    """How it is trained when no trained one is stored."""


class LeNetSettings(TrainedBackbone):
    """A modified LeNet (paper, section 4): 3x3 convolutions with ReLU, pooling between, a linear softmax layer on
    the global average. Its convolutions are named conv1, conv2, ... and each can be a feature."""

    kind: Literal["lenet"]
    """Which network."""
    channels: list[Width] = Field(min_length=1)
    """Output channels of each convolution, first to last."""


class InflatedResNetSettings(TrainedBackbone):
    """A ResNet-50 inflated in time (paper, section 4, NTU RGB+D), for videos. Its stages layer1 to layer4 can be
    features; given weights may be 2D ones in torchvision's layout, which are inflated."""

    kind: Literal["inflated_resnet"]
    """Which network."""
    blocks: list[Width] = Field(default=[3, 4, 6, 3], min_length=1, max_length=4)
    """Bottleneck blocks of each stage; ResNet-50 has 3, 4, 6, 3."""
    width: int = Field(default=64, ge=1)
    """Channels of the stem; stage i has 4 * width * 2^(i-1)."""
    imagenet_inputs: bool = False
    """Scale RGB as weights trained on ImageNet expect it: its mean colour taken off, over its deviation."""


class CooccurrenceSettings(TrainedBackbone):
    """The co-occurrence network for skeletons (paper, section 4, NTU RGB+D; Li et al., IJCAI 2018). Its last
    layers, conv5, conv6, flat (conv6 as one row), fc7 and fc8 (the output), can be features."""

    kind: Literal["cooccurrence"]
    """Which network."""
    width: int = Field(default=64, ge=4)
    """Channels of conv1; the others are in proportion."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Probability of dropping a channel of conv4, conv5 and conv6, and a value of fc7."""


class VggSettings(TrainedBackbone):
    """VGG-19 (paper, section 4, MM-IMDB), for images. Each convolution, conv1_1 to conv5_4, can be a feature; given
    weights are in torchvision's layout."""

    kind: Literal["vgg"]
    """Which network."""
    width: int = Field(default=64, ge=1)
    """Channels of the first stage; then twice, four times, eight times and eight times as many."""
    hidden: int = Field(default=4096, ge=1)
    """Width of the two hidden linear layers."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Probability of dropping a value of these two."""
    imagenet_inputs: bool = False
    """Scale RGB as weights trained on ImageNet expect it: its mean colour taken off, over its deviation."""


class MaxoutMlpSettings(TrainedBackbone):
    """An MLP of maxout layers (paper, section 4, MM-IMDB; Goodfellow et al., 2013), for vectors. Its layers maxout1,
    maxout2, ... can be features."""

    kind: Literal["maxout_mlp"]
    """Which network."""
    hidden: list[Width] = Field(default=[512, 512], min_length=1)
    """Width of each maxout layer."""
    pieces: int = Field(default=2, ge=2)
    """Linear pieces whose maximum is taken."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Probability of dropping an input of a layer."""


class PythonBackboneSettings(Backbone):
    """Your own `nn.Module`: a function in a Python file beside the study that returns it."""

    kind: Literal["python"]
    """Which network."""
    file: str
    """The Python file, relative to the study file. It is run."""
    module: str
    """Name of a function or class in it that is called without arguments and returns the network."""
    training: UnimodalTraining | None = None
    """How it is trained; absent: it is trained already, by its function or by `weights`."""


class GivenFeatures(Settings):
    """No network: the features of this modality are arrays of the data set (`name = "arrays"`)."""

    kind: Literal["given"]
    """Which network: none."""
    features: list[str] = Field(min_length=1)
    """Names of the layers, each an array of the data folder."""

    @property
    def taps(self) -> list[TapSettings]:
        """The features."""
        return [TapSettings(module=feature, name=feature) for feature in self.features]

    @property
    def task(self) -> None:
        """Nothing is trained."""
        return


NetworkSettings = (
    LeNetSettings
    | InflatedResNetSettings
    | CooccurrenceSettings
    | VggSettings
    | MaxoutMlpSettings
    | PythonBackboneSettings
)
BackboneSettings = Annotated[NetworkSettings | GivenFeatures, Field(discriminator="kind")]

BACKBONE_KINDS = tuple(
    get_args(settings.model_fields["kind"].annotation)[0] for settings in get_args(get_args(BackboneSettings)[0])
)
"""What `kind` of a backbone may be."""
