"""Shapes of a study's data, known before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

from mfas_optuna.datasets.samples import Source
from mfas_optuna.spec import AvmnistSettings, DigitsSettings
from mfas_optuna.target import Target


@dataclass(frozen=True)
class DatasetShape:
    """What a data set will look like.

    Attributes:
        inputs: Shape of one sample of each modality, without the batch.
        target: What is predicted.
        tasks: Number of classes of each task besides the target.
        n_samples: Number of pairs of each split.
    """

    inputs: dict[str, tuple[int, ...]]
    target: Target
    tasks: dict[str, int]
    n_samples: dict[str, int]


def of_settings(settings: DigitsSettings | AvmnistSettings) -> DatasetShape:
    """Return the shapes of the data that these settings make."""
    is_small = isinstance(settings, DigitsSettings)
    return DatasetShape(
        inputs={"audio": (1, 24, 24), "image": (1, 8, 8)}
        if is_small
        else {"audio": (1, 112, 112), "image": (1, 28, 28)},
        target=Target.of_classes(10),
        tasks=settings.tasks,
        n_samples={"train": settings.n_train, "validation": settings.n_validation, "test": settings.n_test},
    )


def of_source(source: Source) -> DatasetShape:
    """Return the shapes of samples that were found but not read."""
    return DatasetShape(
        inputs={name: modality.shape for name, modality in source.modalities.items()},
        target=source.target,
        tasks={},
        n_samples={split: len(samples) for split, samples in source.splits.items()},
    )
