"""Studies whose final trainings are there, though nothing was trained for long: what export reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna.export import Exported, ExportRequest, export_study
from mfas_optuna.finals import FinalResult, FinalTraining, Step
from mfas_optuna.fusion.head import NetworkSettings
from mfas_optuna.prepare import Preparation, Prepared, weights_folder
from mfas_optuna.registry.blobs import FolderBlobStore, decode_layer, encode_layer
from mfas_optuna.space import Architecture
from mfas_optuna.spec import StudySpec, validated

RECIPE = {"learning_rate": 3e-3, "weight_decay": 0.0, "dropout": 0.0}

DIGITS: dict[str, Any] = {
    "title": "for tests",
    "dataset": {"name": "digits", "n_train": 100, "n_validation": 50, "n_test": 50},
    "backbones": {
        name: {"kind": "lenet", "channels": [4, 8], "features": ["conv1", "conv2"], "training": {"epochs": 1}}
        for name in ("audio", "image")
    },
    "space": {"activations": ["relu", "sigmoid"], "max_depth": 2},
}


@dataclass
class FinishedStudy:
    """A prepared study with the finals that are added to it.

    Attributes:
        spec: Its settings.
        home: Where everything lies.
        prepared: Data, backbones and features.
    """

    spec: StudySpec
    home: Path
    prepared: Prepared

    @property
    def url(self) -> str:
        return f"sqlite:///{self.home / 'mfas.db'}"

    @staticmethod
    def of(values: Mapping[str, Any], folder: Path) -> FinishedStudy:
        spec = validated(values, "test.toml", folder)
        home = folder / "storage"
        home.mkdir(exist_ok=True)
        prepared = Preparation(
            spec, home=home, data_root=None, device=torch.device("cpu"), rebuild_command="rebuild", say=lambda _: None
        ).run()
        return FinishedStudy(spec, home, prepared)

    def finals(self) -> optuna.Study:
        return optuna.create_study(
            storage=database.open_storage(self.url),
            study_name=finals.final_name("mine"),
            direction="maximize",
            load_if_exists=True,
        )

    def network(self, notation: str, width: int = 6) -> NetworkSettings:
        space = self.spec.search_space()
        return NetworkSettings.of(Architecture.from_paper_notation(notation), space, width)

    def head_state(self, settings: NetworkSettings, seed: int) -> dict[str, Tensor]:
        features = self.prepared.features
        generator = torch.Generator().manual_seed(seed)
        head = settings.build(features.layout, features.target.n_outputs, dropout=0.0, generator=generator)
        return dict(head.state_dict())

    def add(
        self,
        head: Mapping[str, Any],
        state: Mapping[str, Tensor],
        *,
        score: float,
        seed: int = 0,
        step: Step = "frozen",
        method: str = "mfas",
    ) -> None:
        """Store a final training."""
        weights = FolderBlobStore(weights_folder(self.home)).put(encode_layer(state))
        result = FinalResult(score, (score,), 1, 100, 90, 1.5, weights, "2.13.0", "cpu")
        study = self.finals()
        finals.add(study, FinalTraining(method, head, step, RECIPE, seed), result, method.upper())
        finals.write_settings(study, {"tuning_seeds": [0]})

    def unfrozen_state(self, head_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of a whole model whose backbones went a little further."""
        state = {f"head.{name}": value for name, value in head_state.items()}
        store = FolderBlobStore(weights_folder(self.home))
        for modality, trained in self.prepared.backbones.items():
            for name, value in decode_layer(store.get(trained.digest)).items():
                state[f"backbones.of_{modality}.{name}"] = value * 1.1 if value.is_floating_point() else value
            state[f"own_heads.of_{modality}.weight"] = torch.zeros(3)
        return state

    def request(self, folder: Path, **changes: Any) -> ExportRequest:
        return ExportRequest(
            spec=self.spec,
            study_name="mine",
            home=self.home,
            storage_url=self.url,
            data_root=None,
            rebuild_command="rebuild",
            folder=folder,
            **{"onnx": False, **changes},
        )

    def export(self, folder: Path, **changes: Any) -> Exported:
        return export_study(self.request(folder, **changes), say=lambda _: None)


def write_arrays(folder: Path, kind: str = "multiclass", n: int = 120) -> None:
    """Write features of three modalities, each of two layers."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (n, 3))
    for number, modality in enumerate(("image", "sound", "text")):
        for layer, offset in (("early", 0.0), ("late", 20.0)):
            file = folder / modality / f"{layer}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, (bits[:, [number]] + offset + rng.normal(size=(n, 5))).astype(np.float32))
    labels = {"multiclass": bits.sum(axis=1), "multilabel": bits, "regression": bits[:, :2] * 150.0 + 1000.0}
    np.save(folder / "labels.npy", labels[kind])


def arrays_study(kind: str = "multiclass") -> dict[str, Any]:
    return {
        "title": "for tests",
        "dataset": {"name": "arrays", "folder": "features", "target": kind},
        "backbones": {name: {"kind": "given", "features": ["early", "late"]} for name in ("image", "sound", "text")},
        "space": {"activations": ["relu", "tanh"], "max_depth": 2},
    }
