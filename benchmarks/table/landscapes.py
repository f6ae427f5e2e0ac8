"""The tables there are: which networks of which study, trained how, with how many seeds.

The deep tables are closed sub-spaces: two features of the audio network, three of the image network, both activations,
depth 1 to 3. Which features was chosen by the first tables, so that the choice matters; see the cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mfas_optuna import SearchSpace
from mfas_optuna.spec import StudySpec, find_study, load_spec

N_SEEDS_SHALLOW = 6
N_SEEDS_DEEP = 3


@dataclass(frozen=True)
class Landscape:
    """One table to be made.

    Attributes:
        name: Its name.
        study: The shipped study whose data, backbones and training it has.
        what: What sets it apart, in words.
        changes: Settings that differ from the study file's, nested as there.
        features: The features left of each modality; None: all.
        max_depth: The deepest networks.
        n_seeds: Trainings of each network.
    """

    name: str
    study: str
    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, tuple[str, ...]] | None = None
    max_depth: int = 2
    n_seeds: int = N_SEEDS_SHALLOW

    def spec(self) -> StudySpec:
        """Return the study with the changes, and twice its validation pairs: the second half is the second split."""
        values = load_spec(find_study(self.study)).model_dump()
        _change(values, self.changes)
        values["dataset"]["n_validation"] *= 2
        return StudySpec.model_validate(values)

    def space(self) -> SearchSpace:
        """Return the networks of the table."""
        space = self.spec().search_space()
        modalities = space.modalities if self.features is None else self.features
        return SearchSpace(modalities, space.activations, self.max_depth)


def _change(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, changed in changes.items():
        if isinstance(changed, Mapping):
            _change(values[key], changed)
        else:
            values[key] = changed


_AT_LEAST_FIVE = {"task": "at_least_five"}

LANDSCAPES = {
    landscape.name: landscape
    for landscape in (
        Landscape("digits", "digits", "every network of depth 1 and 2 of the embedded study"),
        Landscape(
            "digits-transfer",
            "digits",
            "every network of depth 1 and 2, both backbones trained to tell whether the digit is 5 or more",
            {"backbones": {"audio": _AT_LEAST_FIVE, "image": _AT_LEAST_FIVE}},
        ),
        Landscape("avmnist", "avmnist", "every network of depth 1 and 2"),
        Landscape(
            "avmnist-raw",
            "avmnist",
            "every network of depth 1 and 2, features not standardised, which is the paper's way",
            {"training": {"standardize": False}},
        ),
        Landscape("avmnist-transfer", "avmnist-transfer", "every network of depth 1 and 2, backbones of another task"),
        Landscape(
            "avmnist-transfer-raw",
            "avmnist-transfer",
            "every network of depth 1 and 2, backbones of another task, features not standardised",
            {"training": {"standardize": False}},
        ),
        Landscape(
            "digits-deep",
            "digits",
            "every network of depth 1 to 3 over two audio features and the image features",
            features={"audio": ("conv2", "conv3"), "image": ("conv1", "conv2", "conv3")},
            max_depth=3,
            n_seeds=N_SEEDS_DEEP,
        ),
        *(
            Landscape(
                f"{study}-deep",
                study,
                "every network of depth 1 to 3 over two audio features and the image features",
                features={"audio": ("conv3", "conv5"), "image": ("conv1", "conv2", "conv3")},
                max_depth=3,
                n_seeds=N_SEEDS_DEEP,
            )
            for study in ("avmnist", "avmnist-transfer")
        ),
    )
}
