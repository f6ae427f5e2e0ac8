"""What a search would take on this machine, from a few timed steps; nothing is written."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import DataRequest, Dataset, DatasetShape, Split, shape_of
from mfas_optuna.datasets.arrays import input_name
from mfas_optuna.features.batch_size import DEFAULT_BATCH_SIZE
from mfas_optuna.features.cache import FeatureLayout, FeatureSet
from mfas_optuna.features.extract import extract
from mfas_optuna.objective import TrialRunner
from mfas_optuna.registry.blobs import FolderBlobStore
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.spec import GivenFeatures, NetworkSettings, StudySpec
from mfas_optuna.target import Target
from mfas_optuna.training.unimodal import train_unimodal
from mfas_optuna.worker.devices import choose_device
from mfas_optuna.worker.loop import joint_size
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.samplers import make_sampler

N_TIMED_FIRST, N_TIMED_SAMPLES = 8, 512
"""Samples that a backbone is timed on: the few first, and more unless these took long."""
SLOW_S = 2.0
BYTES_A_TRIAL_RECORD = 20_000
"""What a trial adds to the database and the folder of weights, besides the weights' own size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a search would take on this machine.

    Attributes:
        n_trials: Trials that the search takes.
        n_timed: Trials that were timed.
        joint_size: Networks that are trained at once at most.
        trial_s: Mean seconds of a trial's training as one of a group, over the depths that the search visits.
        search_s: Seconds of all of them.
        preparation_s: Seconds of training each backbone and of extraction, were nothing there yet.
        memory_bytes: Features and labels on the device, twice while a trial shuffles them.
        disk_bytes: Built data, features and trials.
    """

    n_trials: int
    n_timed: int
    joint_size: int
    trial_s: float
    search_s: float
    preparation_s: dict[str, float]
    memory_bytes: int
    disk_bytes: int


def dry_run(request: SearchRequest) -> Estimate:
    """Time one group of trials of each depth, and the backbones on a few samples, on random data of the study's shapes.

    Time depends on shapes alone, so the study's data need not be there.

    Raises:
        DeviceError: The machine has no such device.
        SamplerError: The sampler refuses its settings.
    """
    spec = request.spec
    make_sampler(spec)  # Refuses what a search would refuse.
    device = choose_device(request.device)
    shape = shape_of(DataRequest.of(spec, request.home, request.data_root))
    rng = np.random.default_rng(spec.search.seed)
    preparation_s: dict[str, float] = {}
    widths: dict[str, dict[str, int]] = {}
    n_views = 1 if spec.augmentation is None else spec.augmentation.views
    n_samples = {**shape.n_samples, "train": n_views * shape.n_samples["train"]}
    n_data, n_all = sum(shape.n_samples.values()), sum(n_samples.values())
    for modality, settings in spec.backbones.items():
        if isinstance(settings, GivenFeatures):
            names = [tap.name for tap in settings.taps]
            widths[modality] = {name: shape.inputs[input_name(modality, name)][0] for name in names}
            continue
        training_s, extraction_s, widths[modality] = _time_backbone(spec, modality, settings, shape, device, rng)
        if training_s is not None and settings.training is not None:
            epochs = settings.training.epochs
            preparation_s[f"backbone {modality}"] = training_s * epochs * shape.n_samples["train"]
        preparation_s["features"] = preparation_s.get("features", 0.0) + extraction_s * n_all
    layout = FeatureLayout.of_widths(widths)
    features = _random_features(layout, shape.n_samples, shape.target, rng)
    size = joint_size(request)
    times = _time_trials(spec, features, device, size)
    n_trials = spec.n_trials_planned()
    trial_s = statistics.mean(times[depth] for depth in _depths(spec, n_trials))
    n_kept = n_samples["train"] + n_samples["validation"]
    row_bytes = 4 * layout.n_columns  # In memory; on disk half of it where float16 serves.
    data_bytes = sum(int(np.prod(size)) for size in shape.inputs.values()) * n_data
    return Estimate(
        n_trials=n_trials,
        n_timed=len(times) * size,
        joint_size=size,
        trial_s=trial_s,
        search_s=trial_s * n_trials,
        preparation_s=preparation_s,
        memory_bytes=2 * n_kept * row_bytes,
        disk_bytes=data_bytes + n_all * (row_bytes + 8) + n_trials * BYTES_A_TRIAL_RECORD,
    )


def _time_backbone(
    spec: StudySpec,
    modality: str,
    settings: NetworkSettings,
    shape: DatasetShape,
    device: torch.device,
    rng: np.random.Generator,
) -> tuple[float | None, float, dict[str, int]]:
    """Return seconds a sample of an epoch of training (None: it is not trained) and of extraction, and widths."""
    only = DatasetShape({modality: shape.inputs[modality]}, shape.target, shape.tasks, shape.n_samples)
    taps = [Tap(tap.name, tap.module, tap.channel_axis) for tap in settings.taps]
    is_trained = settings.training is not None and settings.weights is None
    n_samples = N_TIMED_FIRST
    while True:
        small = _random_dataset(only, n_samples, rng).for_task(settings.task)
        model = build_backbone(
            settings,
            sample_shape=shape.inputs[modality],
            n_outputs=small.target.n_outputs,
            generator=torch.Generator().manual_seed(0),
            folder=spec.folder,
        )
        started = time.perf_counter()
        if is_trained and settings.training is not None:
            once = settings.training.model_copy(update={"epochs": 1})
            train_unimodal(model, small, modality, once, device=device)
        trained = time.perf_counter()
        inputs = small.splits["train"].inputs[modality]
        _, found = extract(model.to(device), taps, inputs, batch_size=DEFAULT_BATCH_SIZE, device=device)
        ended = time.perf_counter()
        if n_samples >= N_TIMED_SAMPLES or ended - started > SLOW_S:
            training_s = (trained - started) / n_samples if is_trained else None
            widths = dict(zip([tap.name for tap in taps], found, strict=True))
            return training_s, (ended - trained) / n_samples, widths
        n_samples = N_TIMED_SAMPLES


def _random_dataset(shape: DatasetShape, n_samples: int, rng: np.random.Generator) -> Dataset:
    def split(n: int) -> Split:
        return Split(
            inputs={name: rng.integers(0, 256, (n, *size), dtype=np.uint8) for name, size in shape.inputs.items()},
            labels=_random_labels(shape.target, n, rng),
            tasks={task: rng.integers(0, n_classes, n) for task, n_classes in shape.tasks.items()},
        )

    splits = {"train": split(n_samples), "validation": split(2), "test": split(2)}
    return Dataset("random", "", shape.target, splits, "", shape.tasks)


def _random_labels(target: Target, n: int, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    if target.kind == "multiclass":
        return rng.integers(0, target.n_outputs, n)
    if target.kind == "multilabel":
        return rng.integers(0, 2, (n, target.n_outputs), dtype=np.uint8)
    return rng.standard_normal((n, target.n_outputs), dtype=np.float32)


def _random_features(
    layout: FeatureLayout, n_samples: dict[str, int], target: Target, rng: np.random.Generator
) -> FeatureSet:
    arrays = {
        split: (
            rng.standard_normal((n_samples[split], layout.n_columns), dtype=np.float32),
            _random_labels(target, n_samples[split], rng),
        )
        for split in ("train", "validation")
    }
    ones = np.ones(layout.n_columns, dtype=np.float32)
    return FeatureSet(Path(), layout, target, 0 * ones, ones, "", "", arrays)


def _time_trials(spec: StudySpec, features: FeatureSet, device: torch.device, size: int) -> dict[int, float]:
    """Return the seconds that a trial of each depth takes, as one of a group of this size."""
    unranked = spec.search_space()
    space = unranked.ranked({modality: [0.0] * len(choices) for modality, choices in unranked.choices.items()})
    with tempfile.TemporaryDirectory() as weights:
        runner = TrialRunner(spec, features, FolderBlobStore(Path(weights)), device, space=space)
        result = {}
        for depth in range(1, space.max_depth + 1):
            first = sum(space.size_at(shallower) for shallower in range(1, depth))
            rng = random.Random(seed_from(spec.search.seed, "dry run", depth))  # Of numbers of any size.
            indices = [first + rng.randrange(space.size_at(depth)) for _ in range(size)]
            result[depth] = runner.time_group([space.architecture(index) for index in indices], spec.search.seed)
    return {depth: seconds / size for depth, seconds in result.items()}


def _depths(spec: StudySpec, n_trials: int) -> list[int]:
    """Return the depth of each planned trial, as Algorithm 1 would visit them."""
    space, k = spec.search_space(), spec.search.samples_per_step
    depths: list[int] = []
    n_left = space.size_at(1)  # Networks of depth 1 that mode calibrated has not trained yet.
    while len(depths) < n_trials:
        n_of_one = space.size_at(1) if spec.search.mode == "paper" else min(k, n_left)
        n_left -= n_of_one
        depths += [1] * n_of_one
        for depth in range(2, space.max_depth + 1):
            depths += [depth] * min(k, space.size_at(depth))
        if space.max_depth == 1 and n_of_one == 0:
            break
    return depths[:n_trials] or [1]
