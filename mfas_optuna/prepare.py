"""Everything a search reads, made once and kept in the home folder: data, trained backbones, features of every layer.

Each part is found again by a key of the settings that it follows from, so studies that share settings share files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import Dataset, build_dataset, compare_with_paper, load_dataset
from mfas_optuna.datasets.augmentation import with_views
from mfas_optuna.errors import BlobError, CacheError, HomeError, StudyMismatchError
from mfas_optuna.features.build import Source, build_features
from mfas_optuna.features.cache import FeatureSet, open_features
from mfas_optuna.features.rows import ROW_RULE
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import FolderBlobStore, decode_layer, encode_layer
from mfas_optuna.spec import BackboneSettings, StudySpec, fingerprint
from mfas_optuna.target import METRICS
from mfas_optuna.training.unimodal import train_unimodal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedBackbone:
    """What is known of one trained backbone.

    Attributes:
        digest: SHA-256 of its weights in the blob store.
        validation_score: On the validation split, the study's metric, or accuracy in a task of its own.
        test_score: The same on the test split.
        training_s: Seconds its training took.
        data: Fingerprint of the data that it was trained on.
        task: What it was trained for; None: the study's own target.
    """

    digest: str
    validation_score: float
    test_score: float
    training_s: float
    data: str
    task: str | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a search needs.

    Attributes:
        features: Pooled features and labels of every split.
        fingerprint: Key of the features: equal keys give comparable scores.
        backbones: The trained backbones, by modality.
        card: The data card.
        timings_s: Seconds of each stage that had to be done now.
    """

    features: FeatureSet
    fingerprint: str
    backbones: dict[str, TrainedBackbone]
    card: str
    timings_s: dict[str, float]


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
            progress: Told how far long work is.
            say: Told what is done next.
        """
        self._spec = spec
        self._home = home
        self._data_root = data_root
        self._device = device
        self._rebuild_command = rebuild_command
        self._progress = progress
        self._say = say
        self._store = FolderBlobStore(weights_folder(home))
        self._loaded: Dataset | None = None
        self._force = False
        self._timings: dict[str, float] = {}

    def run(self, *, recorded: Mapping[str, Any] | None = None, force: bool = False) -> Prepared:
        """Return what the search needs, making whatever is missing.

        Args:
            recorded: The backbones that the stored study was begun with; others are refused.
            force: Make the features again although they are there, and whatever of the rest is damaged.

        Raises:
            CacheError: A cached file is damaged.
            StudyMismatchError: The backbones here are not those the study was begun with.
        """
        self._force = force
        with locked(self._home, f"prepare-{self._key()[:16]}", self._say):
            backbones = {
                modality: self._backbone(modality, settings) for modality, settings in self._spec.backbones.items()
            }
            self._check_recorded(backbones, recorded)
            self._compare_with_paper(backbones)
            features, key = self._features(backbones)
        return Prepared(features, key, backbones, features.card, dict(self._timings))

    # Data.

    def _data(self) -> Dataset:
        if self._loaded is None:
            started = time.perf_counter()
            self._say(f"Data: {self._spec.dataset.name}")
            self._loaded = self._load_data()
            self._timings["data"] = time.perf_counter() - started
        return self._loaded

    def _load_data(self) -> Dataset:
        places: dict[str, Any] = {
            "home": self._home,
            "data_root": self._data_root,
            "tasks": self._spec.tasks(),
            "progress": self._progress,
        }
        try:
            return load_dataset(self._spec.dataset, **places)
        except CacheError as error:
            if not self._force:
                raise CacheError(f"{error} Run `{self._rebuild_command}` to build it again.") from error
        build_dataset(self._spec.dataset, **places, force=True)
        return load_dataset(self._spec.dataset, **places)

    def _key(self) -> str:
        scientific = self._spec.scientific()
        return fingerprint([scientific["dataset"], scientific["backbones"], scientific["augmentation"]])

    # Backbones.

    def _backbone(self, modality: str, settings: BackboneSettings) -> TrainedBackbone:
        values = settings.model_dump(mode="json", exclude={"features"})
        parts: list[Any] = [self._spec.dataset.model_dump(mode="json"), modality, values]
        augmentation = self._spec.augmentation
        if augmentation is not None:  # The number of views concerns features alone.
            parts.append(augmentation.model_dump(mode="json", exclude={"views"}))
        metric, is_balanced = None, False
        if settings.task is None:
            metric, is_balanced = self._spec.metric, self._spec.is_balanced
            if is_balanced or metric != METRICS[self._spec.dataset.target_kind][0]:
                parts.append({"metric": metric, "is_balanced": is_balanced})
        key = fingerprint(parts)
        index = self._home / "backbones" / f"{self._spec.dataset.name}-{modality}-{key[:12]}.json"
        trained = self._read_index(index)
        if trained is not None and not (self._force and trained.data != self._data().fingerprint):
            return trained
        dataset = self._data()
        self._say(
            f"Backbone: training {settings.kind} on {modality}{_in_task(settings.task)}, "
            f"{settings.training.epochs} epochs"
        )
        started = time.perf_counter()
        model = self._build(dataset, modality, settings)
        result = train_unimodal(
            model,
            dataset.for_task(settings.task),
            modality,
            settings.training,
            device=self._device,
            augmentation=augmentation,
            metric=metric,
            is_balanced=is_balanced,
            progress=self._progress,
        )
        seconds = time.perf_counter() - started
        trained = TrainedBackbone(
            digest=self._store.put(encode_layer(model.state_dict())),
            validation_score=result.validation_score,
            test_score=result.test_score,
            training_s=round(seconds, 3),
            data=dataset.fingerprint,
            task=settings.task,
        )
        write_json(index, {"version": 1, **trained.as_record()})
        self._timings[f"backbone {modality}"] = seconds
        self._say(
            f"Backbone: {modality}{_in_task(settings.task)} alone scores {trained.validation_score:.1%} on validation, "
            f"{trained.test_score:.1%} on test"
        )
        return trained

    def _read_index(self, index: Path) -> TrainedBackbone | None:
        if not index.exists():
            return None
        try:
            values = json.loads(index.read_text(encoding="utf-8"))
            trained = TrainedBackbone(**{key: value for key, value in values.items() if key != "version"})
            self._store.get(trained.digest)
        except (ValueError, TypeError, BlobError) as error:
            if not self._force:
                raise CacheError(
                    f"{index}: the trained backbone cannot be used: {error} Run `{self._rebuild_command}` to make it "
                    "again."
                ) from error
            return None
        return trained

    def _build(self, dataset: Dataset, modality: str, settings: BackboneSettings) -> nn.Module:
        generator = torch.Generator().manual_seed(settings.training.seed)
        in_channels = int(dataset.splits["train"].inputs[modality].shape[1])
        n_classes = dataset.for_task(settings.task).target.n_outputs
        return build_backbone(settings, in_channels=in_channels, n_classes=n_classes, generator=generator)

    def _check_recorded(self, backbones: Mapping[str, TrainedBackbone], recorded: Mapping[str, Any] | None) -> None:
        changed = [
            f"backbone {modality}: was {recorded[modality]['digest'][:12]}, is now {trained.digest[:12]}"
            for modality, trained in backbones.items()
            if recorded is not None and recorded[modality]["digest"] != trained.digest
        ]
        if changed:
            raise StudyMismatchError(
                "The study was begun with other backbones, so that scores could not be compared: "
                f"{'; '.join(changed)}. Bring the weights it was begun with back into {self._store.folder}, or choose "
                "another --name.",
                changed,
            )

    def _compare_with_paper(self, backbones: Mapping[str, TrainedBackbone]) -> None:
        for modality, trained in backbones.items():
            if trained.task is not None:  # The paper's networks were trained for the target.
                continue
            comparison = compare_with_paper(self._spec.dataset, modality, trained.test_score)
            if comparison is not None:
                self._say(comparison.text if comparison.is_near else f"Warning: {comparison.text}")

    # Features.

    def _features(self, backbones: Mapping[str, TrainedBackbone]) -> tuple[FeatureSet, str]:
        scientific = self._spec.scientific()
        identity: dict[str, Any] = {
            "dataset": scientific["dataset"],
            "backbones": {
                modality: {
                    "digest": backbones[modality].digest,
                    "data": backbones[modality].data,
                    "features": list(settings.features),
                }
                for modality, settings in self._spec.backbones.items()
            },
            # The rule, not what it came to: the key must be known before anything is extracted.
            "rows": ROW_RULE,
        }
        augmentation = self._spec.augmentation
        if augmentation is not None:
            identity["augmentation"] = augmentation.model_dump(mode="json")
        key = fingerprint(identity)
        folder = self._home / "features" / f"{self._spec.dataset.name}-{key[:12]}"
        if folder.exists() and not self._force:
            return open_features(folder, identity, rebuild_command=self._rebuild_command), key
        dataset = self._data()
        self._check_same_data(dataset, backbones)
        self._say("Features: running each backbone once over all samples")
        started = time.perf_counter()
        sources = {
            modality: Source(
                self._restore(dataset, modality, backbones[modality]), [Tap(name, name) for name in settings.features]
            )
            for modality, settings in self._spec.backbones.items()
        }
        if augmentation is not None:
            dataset = with_views(dataset, augmentation)
        build_features(
            folder,
            dataset,
            sources,
            key=identity,
            device=self._device,
            progress=self._progress,
            say=self._say,
        )
        self._timings["features"] = time.perf_counter() - started
        return open_features(folder, identity, rebuild_command=self._rebuild_command), key

    def _check_same_data(self, dataset: Dataset, backbones: Mapping[str, TrainedBackbone]) -> None:
        """Refuse backbones of other data: with another split they may have been trained on what would test them."""
        stale = [modality for modality, trained in backbones.items() if trained.data != dataset.fingerprint]
        if stale:
            raise CacheError(
                f"The data in {self._home / 'data'} are not those that the stored backbones of {', '.join(stale)} were "
                f"trained on; they were built anew from other files. Run `{self._rebuild_command}` to train again."
            )

    def _restore(self, dataset: Dataset, modality: str, trained: TrainedBackbone) -> nn.Module:
        model = self._build(dataset, modality, self._spec.backbones[modality])
        model.load_state_dict(decode_layer(self._store.get(trained.digest)))
        return model.to(self._device).eval().requires_grad_(False)


def _in_task(task: str | None) -> str:
    return "" if task is None else f" (task {task})"


def weights_folder(home: Path) -> Path:
    """Return the folder of the weight blobs in a home."""
    return home / "weights"


def check_home(home: Path) -> None:
    """Create the home folder and make sure that it can be written.

    Raises:
        HomeError: It cannot; the message says why and what to do.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HomeError(
            f"{home}: the home folder cannot be written: {error.strerror}. Set MFAS_HOME to a folder that can."
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file so that a reader sees the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def locked(home: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a named lock of the home folder; say so when another process has it, and wait."""
    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is preparing the same data and backbones; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
