"""Trained backbones: trained here, or given by the user; kept as blobs, with an index that says which is whose."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.weights import load_weights
from mfas_optuna.datasets import Dataset
from mfas_optuna.errors import BlobError, CacheError, DataNotFoundError, StudyMismatchError
from mfas_optuna.prepare.home import write_json
from mfas_optuna.progress import Progress
from mfas_optuna.registry.blobs import BlobStore, decode_layer, encode_layer
from mfas_optuna.spec import NetworkSettings, PythonBackboneSettings, StudySpec, UnimodalTraining, fingerprint
from mfas_optuna.target import METRIC_TITLES, Metric
from mfas_optuna.training.unimodal import UnimodalResult, chance_score, score_unimodal, train_unimodal

_VERSION = 2
_MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TrainedBackbone:
    """What is known of one trained backbone.

    Attributes:
        digest: SHA-256 of its weights in the blob store.
        validation_score: Its metric on the validation split, in its task; None when its outputs are not the target's.
        test_score: The same on the test split.
        training_s: Seconds its training took; 0 when it was given.
        data: Fingerprint of the data that it was trained or scored on.
        task: What it was trained for; None: the study's own target.
        given: Whether its weights were given by the user.
        files: SHA-256 of each of the user's files that went into it, by the name in the study file.
    """

    digest: str
    validation_score: float | None
    test_score: float | None
    training_s: float
    data: str
    task: str | None = None
    given: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


class Backbones:
    """The trained backbones of a study."""

    def __init__(
        self,
        spec: StudySpec,
        *,
        home: Path,
        identity: dict[str, Any],
        store: BlobStore,
        device: torch.device,
        rebuild_command: str,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        """Keep the settings.

        Args:
            spec: The study.
            home: Folder that everything is kept in.
            identity: What tells the data from others of the same settings.
            store: Where weights are kept.
            device: Where networks are trained and run.
            rebuild_command: What a user runs when a cached file is damaged.
            progress: Told how far long work is.
            say: Told what is done next.
        """
        self._spec = spec
        self._home = home
        self._identity = identity
        self._store = store
        self._device = device
        self._rebuild_command = rebuild_command
        self._progress = progress
        self._say = say

    def find(self, modality: str, settings: NetworkSettings, *, force: bool) -> TrainedBackbone | None:
        """Return the backbone that is there, None when there is none, or with `force` when it is damaged.

        Raises:
            CacheError: It is damaged.
        """
        index = self._index(modality, settings)
        if not index.exists():
            return None
        try:
            trained = _read_index(index)
            self._store.get(trained.digest)
        except (ValueError, TypeError, BlobError) as error:
            if not force:
                raise self._unusable(index, error) from error
            return None
        return trained

    def look(self, modality: str, settings: NetworkSettings) -> TrainedBackbone | None:
        """Return the backbone that is there, its weights unread; None when there is none.

        Raises:
            CacheError: What says which blob it is cannot be read, or the store lacks the blob.
        """
        index = self._index(modality, settings)
        if not index.exists():
            return None
        try:
            trained = _read_index(index)
            if trained.digest not in self._store:
                raise BlobError(trained.digest, f"{self._store.location} lacks its weights, {trained.digest}.")
        except (ValueError, TypeError, BlobError) as error:
            raise self._unusable(index, error) from error
        return trained

    def _unusable(self, index: Path, error: Exception) -> CacheError:
        return CacheError(
            f"{index}: the trained backbone cannot be used: {error} Run `{self._rebuild_command}` to make it again."
        )

    def fetch(self, modality: str, settings: NetworkSettings, recorded: Mapping[str, Any]) -> TrainedBackbone:
        """Return the backbone that a study was begun with on another machine, from the store; nothing is trained.

        Args:
            modality: Whose.
            settings: The study's.
            recorded: What the study recorded of it.

        Raises:
            CacheError: The store lacks it, it is damaged, or the record is not whole.
            StudyMismatchError: A file of the user that went into it is another one here.
        """
        try:
            trained = TrainedBackbone(**recorded)
        except TypeError as error:
            raise CacheError(
                f"The study's record of the backbone of {modality} is not whole: {error}. Copy "
                f"{self._home / 'backbones'} from the machine that began the study."
            ) from error
        changed = [
            f"{name}: was {digest[:12]}, is now {found[:12]}"
            for name, digest in trained.files.items()
            if (found := _digest(self._spec.folder / name)) not in (digest, _MISSING)
        ]
        if changed:
            raise StudyMismatchError(
                f"The study's backbone of {modality} was made with other files: {'; '.join(changed)}. Restore them, or "
                "choose another --name.",
                changed,
            )
        self._say(f"Backbone: {modality} was trained on another machine; fetching {trained.digest[:12]}")
        try:
            self._store.get(trained.digest)
        except BlobError as error:
            raise CacheError(
                f"The study was begun with a backbone of {modality} that {self._store.location} does not give: {error} "
                "Name the store that it was begun with by --weights, or copy the blob there from the weights folder of "
                "the machine that trained it. It is not trained here, since scores could not be compared: where "
                f"training always gives the same weights, `{self._rebuild_command}` makes it; others are refused."
            ) from error
        write_json(self._index(modality, settings), {"version": _VERSION, **trained.as_record()})
        return trained

    def mark_used(self, trained: TrainedBackbone) -> None:
        """Make sure that a collection of unused weights passes over a backbone until a study refers to it.

        Raises:
            BlobError: It is missing or damaged.
            HomeError: The folder of weights cannot be written.
            StoreError: The store cannot be reached or written.
        """
        self._store.put(self._store.get(trained.digest))

    def make(self, modality: str, settings: NetworkSettings, dataset: Dataset) -> TrainedBackbone:
        """Train a backbone, or take the weights that are given, and score it.

        Raises:
            DataNotFoundError: The file of given weights is missing.
            TrainingDiverged: The loss became NaN or infinite.
            WeightsError: Given weights do not fit.
        """
        labelled = dataset.for_task(settings.task)
        metric: Metric = self._spec.metric if settings.task is None else "accuracy"
        model = self.build(dataset, modality, settings)
        started = time.perf_counter()
        if settings.weights is not None:
            self._load(model, modality, settings, settings.weights)
        if settings.training is None or settings.weights is not None:
            self._say(f"Backbone: {modality} is trained already; scoring it")
            result = score_unimodal(model.to(self._device), labelled, modality, metric, device=self._device)
            seconds = 0.0
        else:
            result = self._train(model, modality, settings, settings.training, labelled, metric)
            seconds = time.perf_counter() - started
        trained = TrainedBackbone(
            digest=self._store.put(encode_layer(model.state_dict())),
            validation_score=None if result is None else result.validation_score,
            test_score=None if result is None else result.test_score,
            training_s=round(seconds, 3),
            data=dataset.fingerprint,
            task=settings.task,
            given=seconds == 0.0,
            files=self._files(settings),
        )
        index = self._index(modality, settings)
        write_json(index, {"version": _VERSION, **trained.as_record()})
        shutil.rmtree(_checkpoint(index), ignore_errors=True)
        self._report(modality, settings, trained, labelled, metric)
        return trained

    def build(self, dataset: Dataset, modality: str, settings: NetworkSettings) -> nn.Module:
        """Return an untrained network for a modality of the data."""
        training = settings.training
        return build_backbone(
            settings,
            sample_shape=dataset.splits["train"].inputs[modality].shape[1:],
            n_outputs=dataset.for_task(settings.task).target.n_outputs,
            generator=torch.Generator().manual_seed(0 if training is None else training.seed),
            folder=self._spec.folder,
        )

    def restore(
        self, dataset: Dataset, modality: str, settings: NetworkSettings, trained: TrainedBackbone
    ) -> nn.Module:
        """Return a trained network, frozen, on the device."""
        model = self.build(dataset, modality, settings)
        model.load_state_dict(decode_layer(self._store.get(trained.digest)))
        return model.to(self._device).eval().requires_grad_(False)

    def _train(
        self,
        model: nn.Module,
        modality: str,
        settings: NetworkSettings,
        training: UnimodalTraining,
        labelled: Dataset,
        metric: Metric,
    ) -> UnimodalResult:
        self._say(
            f"Backbone: training {settings.kind} on {modality}{_in_task(settings.task)}, {training.epochs} epochs"
        )
        return train_unimodal(
            model,
            labelled,
            modality,
            training,
            device=self._device,
            metric=metric,
            is_balanced=settings.task is None and self._spec.is_balanced,
            augmentation=self._spec.augmentation,
            checkpoint=_checkpoint(self._index(modality, settings)),
            progress=self._progress,
        )

    def _load(self, model: nn.Module, modality: str, settings: NetworkSettings, weights: str) -> None:
        file = self._spec.folder / weights
        if not file.is_file():
            raise DataNotFoundError(
                f"{file}: expected the trained weights of {modality}, found no such file. Mend "
                f"backbones.{modality}.weights in the study file, or leave it out to have the network trained."
            )
        left_out = load_weights(model, settings, file)
        if left_out:
            self._say(f"Backbone: {modality}: not taken from {file.name}, since other classes: {', '.join(left_out)}")

    def _index(self, modality: str, settings: NetworkSettings) -> Path:
        """Return the file that says which blob a backbone is; its name follows from all that made it what it is."""
        spec = self._spec
        parts: list[Any] = [
            spec.dataset.model_dump(mode="json"),
            self._identity,
            modality,
            settings.model_dump(mode="json", exclude={"features"}),
        ]
        if settings.task is None:
            parts.append({"metric": spec.metric, "balance": spec.is_balanced})
        if spec.augmentation is not None:  # The number of views concerns features alone.
            parts.append(spec.augmentation.model_dump(mode="json", exclude={"views"}))
        parts += [[name, digest] for name, digest in self._files(settings).items()]
        return self._home / "backbones" / f"{spec.dataset.name}-{modality}-{fingerprint(parts)[:12]}.json"

    def _files(self, settings: NetworkSettings) -> dict[str, str]:
        names = [settings.weights] if settings.weights is not None else []
        if isinstance(settings, PythonBackboneSettings):
            names.append(settings.file)
        return {name: _digest(self._spec.folder / name) for name in names}

    def _report(
        self, modality: str, settings: NetworkSettings, trained: TrainedBackbone, labelled: Dataset, metric: Metric
    ) -> None:
        title = METRIC_TITLES[metric]
        if trained.validation_score is None:
            self._say(
                f"Backbone: {modality} gives other outputs than the target's {labelled.target.n_outputs}, so that its "
                "own score is not known"
            )
            return
        self._say(
            f"Backbone: {modality}{_in_task(settings.task)} alone scores {trained.validation_score:.4f} on validation, "
            f"{trained.test_score:.4f} on test ({title})"
        )
        chance = chance_score(labelled, metric)
        n = len(labelled.splits["validation"])
        if trained.validation_score <= chance + 2.0 * math.sqrt(max(chance * (1.0 - chance), 0.0) / n):
            self._say(
                f"Warning: the backbone of {modality} scores like chance ({title} {trained.validation_score:.4f}, "
                f"chance {chance:.4f}): its features may be worth nothing. Train it longer, or look at its data and "
                "weights."
            )


def _read_index(index: Path) -> TrainedBackbone:
    values = json.loads(index.read_text(encoding="utf-8"))
    return TrainedBackbone(**{key: value for key, value in values.items() if key != "version"})


def _checkpoint(index: Path) -> Path:
    return index.with_name(f".partial-{index.stem}")


def _in_task(task: str | None) -> str:
    return "" if task is None else f" (task {task})"


def _digest(file: Path) -> str:
    import hashlib

    if not file.is_file():
        return _MISSING
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
