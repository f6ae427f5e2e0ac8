"""The paper's three studies as shapes: what the features of each are like, with random values in them.

AV-MNIST is the project's own study, its channels multiplied. Of MM-IMDB and NTU the package has no backbones, so their
widths are written down here; the paper gives the numbers of features, the activations and the depth (the sizes of its
spaces, 110,592 and 5,308,416, are those of the deepest networks), and what the features' widths follow from:

- MM-IMDB: eight convolutions of a VGG-19 (one or two of each block, 64 to 512 channels) and two hidden layers of a
  maxout MLP on the text. The paper does not give the MLP's widths; 128 each is assumed. The task is multi-label; here
  it is a cross-entropy over the 23 genres, which costs the same.
- NTU: the four stages of an inflated ResNet-50 (256 to 2,048 channels) and four hidden layers of the co-occurrence
  network (128 to 512).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.spec import LeNetSettings, load_spec
from mfas_optuna.training.brief import BriefData

AVMNIST_STUDY = Path(__file__).parents[1] / "studies" / "avmnist.toml"
VALIDATION_FRACTION = 0.1
"""Validation rows for each training row, as in the avmnist study."""


@dataclass(frozen=True)
class Shapes:
    """Features of one study.

    Attributes:
        name: What it is.
        space: Its search space.
        widths: Width of each feature, by modality and name.
        n_classes: Classes.
    """

    name: str
    space: SearchSpace
    widths: Mapping[str, Mapping[str, int]]
    n_classes: int

    @property
    def layout(self) -> FeatureLayout:
        """All features side by side."""
        return FeatureLayout.of_widths(self.widths)

    def data(self, n_rows: int, device: torch.device) -> BriefData:
        """Return random rows on the device, with a tenth as many for validation."""
        generator = torch.Generator().manual_seed(0)
        n_validation = max(1, round(VALIDATION_FRACTION * n_rows))

        def rows(n: int) -> torch.Tensor:
            return torch.randn(n, self.layout.n_columns, generator=generator).to(device)

        def labels(n: int) -> torch.Tensor:
            return torch.randint(self.n_classes, (n,), generator=generator).to(device)

        return BriefData(self.layout, rows(n_rows), labels(n_rows), rows(n_validation), labels(n_validation))

    def draw(self, depth: int, n_networks: int) -> list[Architecture]:
        """Return different networks of one depth, as a step of the search has them."""
        first = sum(self.space.size_at(shallower) for shallower in range(1, depth))
        size = self.space.size_at(depth)
        drawn = random.Random(depth).sample(range(size), min(n_networks, size))
        return [self.space.architecture(first + index) for index in drawn]

    def network(self, architecture: Architecture, width: int, seed: int, device: torch.device) -> FusionNetwork:
        """Return a fresh fusion network on the device."""
        return FusionNetwork(
            architecture,
            self.layout.widths(self.space),
            self.space.activations,
            width=width,
            n_outputs=self.n_classes,
            generator=torch.Generator().manual_seed(seed),
        ).to(device)


def avmnist_backbones(channels_factor: int) -> dict[str, LeNetSettings]:
    """Return the backbones of the avmnist study with their channels multiplied: 1 starts at 8, 3 at 24."""
    return {
        modality: settings.model_copy(update={"channels": [channels_factor * each for each in settings.channels]})
        for modality, settings in load_spec(AVMNIST_STUDY).backbones.items()
        if isinstance(settings, LeNetSettings)
    }


def avmnist(channels_factor: int) -> Shapes:
    """Return the shapes of the avmnist study with its channels multiplied."""
    backbones = avmnist_backbones(channels_factor)
    widths = {
        modality: dict(zip((tap.name for tap in settings.taps), settings.channels, strict=True))
        for modality, settings in backbones.items()
    }
    first = min(min(of_modality.values()) for of_modality in widths.values())
    return Shapes(f"AV-MNIST, {first} channels", load_spec(AVMNIST_STUDY).search_space(), widths, n_classes=10)


def mmimdb() -> Shapes:
    """Return the shapes of MM-IMDB."""
    return _named("MM-IMDB", {"text": [128, 128], "image": [64, 128, 256, 256, 512, 512, 512, 512]}, 3, n_classes=23)


def ntu() -> Shapes:
    """Return the shapes of NTU RGB+D."""
    return _named("NTU", {"video": [256, 512, 1024, 2048], "pose": [128, 256, 256, 512]}, 4, n_classes=60)


def _named(name: str, widths: Mapping[str, Sequence[int]], max_depth: int, *, n_classes: int) -> Shapes:
    by_name = {
        modality: {f"feature{number}": width for number, width in enumerate(of_modality, start=1)}
        for modality, of_modality in widths.items()
    }
    features = {modality: list(of_modality) for modality, of_modality in by_name.items()}
    space = SearchSpace(features, ["relu", "sigmoid", "leaky_relu"], max_depth)
    return Shapes(name, space, by_name, n_classes)
