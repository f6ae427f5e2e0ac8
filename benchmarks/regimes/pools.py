"""Pooled features of real data, from which cells are drawn: those of two studies on AV-MNIST.

Shapes: N rows of a split, F columns of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.prepare import Preparation
from mfas_optuna.spec import find_study, load_spec

PoolName = Literal["digit", "half"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

STUDIES: Mapping[PoolName, str] = {
    "digit": "avmnist",
    "half": str(Path(__file__).parents[1] / "studies" / "avmnist-half.toml"),
}
"""The study of each pool: backbones trained for the digit, or for whether it is 5 or more."""


@dataclass(frozen=True)
class PoolSplit:
    """One split of a pool; image and audio of a row have the same digit.

    Attributes:
        features: (N, F) of each layer, by modality and layer, each column with the mean 0 and deviation 1 that it has
            on the pool's training split.
        digits: The digit of each row, (N,).
    """

    features: Mapping[str, Mapping[str, Floats]]
    digits: Ints


@dataclass(frozen=True)
class Pool:
    """What cells are drawn from.

    Attributes:
        splits: By name: train, validation, test.
        fingerprint: Key of the features.
    """

    splits: Mapping[str, PoolSplit]
    fingerprint: str

    @staticmethod
    def of(features: FeatureSet, fingerprint: str) -> Pool:
        """Return the layers of a feature set, standardised; what backbones give for the target is left out."""
        layout = features.layout
        shift_F, scale_F = layout.standardization(features.mean, features.std)
        splits = {}
        for split in features.arrays:
            rows_NF = (np.asarray(features.matrix(split), dtype=np.float32) - shift_F) / scale_F
            layers = {
                modality: {name: rows_NF[:, layout.columns(modality, name)] for name in layout.features(modality)}
                for modality in layout.spans
            }
            splits[split] = PoolSplit(layers, np.asarray(features.labels(split), dtype=np.int64))
        return Pool(splits, fingerprint)


def load_pool(name: PoolName, *, home: Path, data_root: Path | None, say: Callable[[str], None]) -> Pool:
    """Return a pool; its study is prepared where that was not done yet.

    Args:
        name: Which.
        home: Folder of data, backbones and features.
        data_root: Folder of raw data.
        say: Told what is done.

    Raises:
        MfasError: Raw data are missing, or a file is damaged.
    """
    study = STUDIES[name]
    prepared = Preparation(
        load_spec(find_study(study)),
        home=home,
        data_root=data_root,
        device=torch.device("cpu"),
        rebuild_command=f"mfas-optuna prepare --study {study} --force",
        say=say,
    ).run()
    return Pool.of(prepared.features, prepared.fingerprint)
