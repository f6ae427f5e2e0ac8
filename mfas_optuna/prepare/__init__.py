"""What a search reads: data, trained backbones and cached features, made once and shared between studies.

Everything lies in the home folder: `data/`, `backbones/` (which blob is whose), `weights/` (blobs), `features/`. A lock
of each study's inputs keeps two processes from doing the same work; the second finds it done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mfas_optuna import datasets
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import DataRequest, Dataset
from mfas_optuna.datasets.arrays import input_name
from mfas_optuna.datasets.augmentation import with_views
from mfas_optuna.errors import CacheError, DataError, StudyMismatchError
from mfas_optuna.features.build import Source, build_features
from mfas_optuna.features.cache import OUTPUT, FeatureSet, open_features, write_features
from mfas_optuna.features.rows import ROW_RULE
from mfas_optuna.prepare.backbones import Backbones, TrainedBackbone
from mfas_optuna.prepare.home import (
    artifacts_folder,
    blob_store,
    cache_folder,
    check_home,
    locked,
    partial_folder,
    weights_folder,
    write_json,
)
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import GivenFeatures, NetworkSettings, StudySpec, fingerprint

__all__ = [
    "Preparation",
    "Prepared",
    "Standing",
    "TrainedBackbone",
    "artifacts_folder",
    "blob_store",
    "cache_folder",
    "check_home",
    "locked",
    "partial_folder",
    "weights_folder",
    "write_json",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a search needs.

    Attributes:
        features: Pooled features and labels of every split.
        fingerprint: Key of the features: equal keys give comparable scores.
        backbones: The trained backbones, by modality; none where features are given.
        card: The data card.
        timings_s: Seconds of each stage that had to be done now.
    """

    features: FeatureSet
    fingerprint: str
    backbones: dict[str, TrainedBackbone]
    card: str
    timings_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a study's preparation is there.

    Attributes:
        backbones: What is known of each modality's backbone; None where it is not made yet.
        features: The folder of the features; None where they are not made yet.
    """

    backbones: dict[str, TrainedBackbone | None]
    features: Path | None


class Preparation:
    """Makes what a study needs, or finds it; one process at a time does the work, the others wait."""

    def __init__(
        self,
        spec: StudySpec,
        *,
        home: Path,
        data_root: Path | None,
        device: torch.device,
        rebuild_command: str,
        weights: str | None = None,
        progress: Progress = silent,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """Keep the settings.

        Args:
            spec: The study.
            home: Folder that everything is kept in.
            data_root: Folder of raw data, for data sets that are made from such.
            device: Where backbones are trained and run.
            rebuild_command: What a user runs when a cached file is damaged.
            weights: Folder or URL of the weights; None: in the home folder.
            progress: Told how far long work is.
            say: Told what is done next.

        Raises:
            DataError: The mark of generated data cannot be read.
        """
        self._spec = spec
        self._home = home
        self._wanted = DataRequest.of(spec, home, data_root, progress)
        self._device = device
        self._rebuild_command = rebuild_command
        self._progress = progress
        self._say = say
        self._identity = datasets.identity(self._wanted)
        self._store = blob_store(home, weights)
        self._backbones = Backbones(
            spec,
            home=home,
            identity=self._identity,
            store=self._store,
            device=device,
            rebuild_command=rebuild_command,
            progress=progress,
            say=say,
        )
        self._loaded: Dataset | None = None
        self._force = False
        self._is_begun = False
        self._timings: dict[str, float] = {}

    def run(self, *, recorded: Mapping[str, Any] | None = None, force: bool = False) -> Prepared:
        """Return what the search needs, making whatever is missing.

        Args:
            recorded: The backbones that the stored study was begun with, by modality: those that are not here are
                fetched from the store and never trained, and others are refused.
            force: Make the features again although they are there, and whatever of the rest is damaged.

        Raises:
            CacheError: A cached file is damaged, or the store lacks a recorded backbone.
            StoreError: The store of weights cannot be reached.
            StudyMismatchError: The backbones or data here are not those the study was begun with.
        """
        self._force = force
        self._is_begun = recorded is not None
        with locked(self._home, f"prepare-{self._key()[:16]}", self._say):
            backbones = {
                modality: self._backbone(modality, settings, None if recorded is None else recorded.get(modality))
                for modality, settings in self._spec.backbones.items()
                if not isinstance(settings, GivenFeatures)
            }
            self._check_same_data(self._built_fingerprint(), backbones)
            self._check_recorded(backbones, recorded)
            self._compare_with_paper(backbones)
            features, key = self._features(backbones)
        if features.stand_in:
            self._say(f"Warning: STAND-IN: {features.stand_in}. Scores say nothing about the data set itself")
        return Prepared(features, key, backbones, features.card, dict(self._timings))

    def look(self) -> Standing:
        """Return what is there, making nothing and reading neither weights nor features.

        Raises:
            CacheError: What says which blob a backbone is cannot be read, or the store lacks the blob.
            StoreError: The store of weights cannot be reached.
        """
        found = {
            modality: self._backbones.look(modality, settings)
            for modality, settings in self._spec.backbones.items()
            if not isinstance(settings, GivenFeatures)
        }
        made = {modality: trained for modality, trained in found.items() if trained is not None}
        folder = self._feature_folder(made)[0] if len(made) == len(found) else None
        return Standing(found, folder if folder is not None and folder.exists() else None)

    # Data.

    def _data(self) -> Dataset:
        if self._loaded is None:
            started = time.perf_counter()
            self._say(f"Data: {self._spec.dataset.name}")
            self._loaded = self._load_data()
            self._timings["data"] = time.perf_counter() - started
        return self._loaded

    def _load_data(self) -> Dataset:
        try:
            return datasets.load_dataset(self._wanted)
        except CacheError as error:
            if not self._force:
                raise CacheError(f"{error} Run `{self._rebuild_command}` to build it again.") from error
        datasets.build_dataset(self._wanted, force=True)
        return datasets.load_dataset(self._wanted)

    def _key(self) -> str:
        scientific = self._spec.scientific()
        return fingerprint([scientific["dataset"], self._identity, scientific["backbones"], scientific["augmentation"]])

    # Backbones.

    def _backbone(
        self, modality: str, settings: NetworkSettings, recorded: Mapping[str, Any] | None
    ) -> TrainedBackbone:
        trained = self._backbones.find(modality, settings, force=self._force)
        if trained is not None and not (self._force and trained.data != self._data().fingerprint):
            if recorded is None:
                self._backbones.mark_used(trained)
            return trained
        if recorded is not None:
            return self._backbones.fetch(modality, settings, recorded)
        dataset = self._data()
        started = time.perf_counter()
        trained = self._backbones.make(modality, settings, dataset)
        self._timings[f"backbone {modality}"] = time.perf_counter() - started
        return trained

    def _check_recorded(self, backbones: Mapping[str, TrainedBackbone], recorded: Mapping[str, Any] | None) -> None:
        changed = [
            f"backbone {modality}: was {recorded[modality]['digest'][:12]}, is now {trained.digest[:12]}"
            for modality, trained in backbones.items()
            if recorded is not None and recorded[modality]["digest"] != trained.digest
        ]
        if changed:
            raise StudyMismatchError(
                "The study was begun with other backbones, so that scores could not be compared: "
                f"{'; '.join(changed)}. Bring the weights it was begun with back into {self._store.location}, or "
                "choose another --name.",
                changed,
            )

    def _compare_with_paper(self, backbones: Mapping[str, TrainedBackbone]) -> None:
        for modality, trained in backbones.items():
            if trained.task is not None or trained.test_score is None:  # The paper's were trained for the target.
                continue
            comparison = datasets.compare_with_paper(self._spec.dataset, modality, trained.test_score)
            if comparison is not None:
                self._say(comparison.text if comparison.is_near else f"Warning: {comparison.text}")

    # Features.

    def _feature_folder(self, backbones: Mapping[str, TrainedBackbone]) -> tuple[Path, dict[str, Any], str]:
        """Return where the features lie, what they follow from, and the key of that."""
        spec = self._spec
        identity: dict[str, Any] = {
            "dataset": {**spec.dataset.model_dump(mode="json"), **self._identity},
            "backbones": {
                modality: {
                    "features": [tap.model_dump(mode="json") for tap in settings.taps],
                    **(
                        {"digest": backbones[modality].digest, "data": backbones[modality].data}
                        if modality in backbones
                        else {}
                    ),
                }
                for modality, settings in spec.backbones.items()
            },
            "outputs": self._with_output(backbones),
            # The rule, not what it came to: the key must be known before anything is extracted.
            "rows": ROW_RULE,
        }
        if spec.augmentation is not None:
            identity["augmentation"] = spec.augmentation.model_dump(mode="json")
        key = fingerprint(identity)
        return self._home / "features" / f"{spec.dataset.name}-{key[:12]}", identity, key

    def _features(self, backbones: Mapping[str, TrainedBackbone]) -> tuple[FeatureSet, str]:
        folder, identity, key = self._feature_folder(backbones)
        if folder.exists() and not self._force:
            return open_features(folder, identity, rebuild_command=self._rebuild_command), key
        dataset = self._data()
        self._check_same_data(dataset.fingerprint, backbones)
        started = time.perf_counter()
        if backbones:
            self._extract(folder, identity, dataset, backbones)
        else:
            self._copy(folder, identity, dataset)
        self._timings["features"] = time.perf_counter() - started
        return open_features(folder, identity, rebuild_command=self._rebuild_command), key

    def trainable(self, prepared: Prepared) -> tuple[Dataset, dict[str, Source]]:
        """Return the data, and each modality's trained network with its taps, for training that goes on with both.

        The networks are frozen and in eval mode; equal calls give networks of their own.

        Args:
            prepared: What `run` gave.

        Raises:
            DataError: The features were given as they are, so that there are no networks.
            CacheError: The data here are not those that the networks were trained on.
        """
        if not prepared.backbones:
            raise DataError(
                "Features were given, so that there are no backbones to train. Leave the second step out: "
                "--no-unfrozen."
            )
        dataset = self._data()
        self._check_same_data(dataset.fingerprint, prepared.backbones)
        return dataset, self._sources(dataset, prepared.backbones)

    def _sources(self, dataset: Dataset, backbones: Mapping[str, TrainedBackbone]) -> dict[str, Source]:
        with_output = self._with_output(backbones)
        return {
            modality: Source(
                self._backbones.restore(dataset, modality, settings, backbones[modality]),
                [
                    *(Tap(tap.name, tap.module, tap.channel_axis) for tap in settings.taps),
                    *([Tap(OUTPUT, "")] if modality in with_output else []),
                ],
            )
            for modality, settings in self._spec.backbones.items()
            if not isinstance(settings, GivenFeatures)
        }

    def _with_output(self, backbones: Mapping[str, TrainedBackbone]) -> list[str]:
        """Return the modalities whose backbones give the study's own target: simple fusion adds such outputs.

        Networks that were trained elsewhere for values give them in units of their own: their outputs are left out.
        """
        is_regression = self._spec.dataset.target_kind == "regression"
        return [
            modality
            for modality, trained in backbones.items()
            if trained.task is None and trained.validation_score is not None and not (is_regression and trained.given)
        ]

    def _extract(
        self, folder: Path, identity: Mapping[str, Any], dataset: Dataset, backbones: Mapping[str, TrainedBackbone]
    ) -> None:
        self._say("Features: running each backbone once over all samples")
        sources = self._sources(dataset, backbones)
        if self._spec.augmentation is not None:
            dataset = with_views(dataset, self._spec.augmentation)
        build_features(
            folder, dataset, sources, key=identity, device=self._device, progress=self._progress, say=self._say
        )

    def _copy(self, folder: Path, identity: Mapping[str, Any], dataset: Dataset) -> None:
        """Make a feature cache of features that are the data themselves."""
        names = {modality: [tap.name for tap in of.taps] for modality, of in self._spec.backbones.items()}
        inputs = dataset.splits["train"].inputs
        write_features(
            folder,
            key=identity,
            card=dataset.card,
            matrices={
                split: [
                    of_split.inputs[input_name(modality, name)]  # type: ignore[misc]  # float32, as arrays are read
                    for modality, of_modality in names.items()
                    for name in of_modality
                ]
                for split, of_split in dataset.splits.items()
            },
            labels={split: of_split.labels for split, of_split in dataset.splits.items()},
            widths={
                modality: {name: inputs[input_name(modality, name)].shape[1] for name in of_modality}
                for modality, of_modality in names.items()
            },
            target=dataset.target,
            stand_in=dataset.stand_in,
            say=self._say,
        )

    def _built_fingerprint(self) -> str | None:
        """Return which data are built, as far as that can be told without looking at them."""
        if self._loaded is not None:
            return self._loaded.fingerprint
        try:
            return datasets.built_fingerprint(self._wanted)
        except CacheError:  # Damaged, and perhaps not needed; whoever loads them says so.
            return None

    def _check_same_data(self, data: str | None, backbones: Mapping[str, TrainedBackbone]) -> None:
        """Refuse backbones of other data: with another split they may have been trained on what would test them."""
        if data is None:
            return
        stale = [modality for modality, trained in backbones.items() if trained.data != data]
        if stale and self._is_begun:
            began = backbones[stale[0]].data
            raise StudyMismatchError(
                f"The data in {self._home / 'data'} (digest {data[:12]}) are not those that the study was begun with "
                f"({began[:12]}), on which its backbones of {', '.join(stale)} were trained. Build them from the same "
                "files, or choose another --name.",
                [f"data: was {began[:12]}, is now {data[:12]}"],
            )
        if stale:
            raise CacheError(
                f"The data in {self._home / 'data'} are not those that the stored backbones of {', '.join(stale)} were "
                f"trained on; they were built anew from other files. Run `{self._rebuild_command}` to train again."
            )
