"""The second step: what the first chose, with the backbones, from raw samples.

It starts from the weights that the first step left, seed by seed, so that both steps of a seed are paired.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import torch

from mfas_optuna import finals
from mfas_optuna.datasets import Dataset
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.build import Source
from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.final.frozen import PURPOSE, FrozenStep, Places
from mfas_optuna.finals import Choice, Final, FinalResult, FinalTraining
from mfas_optuna.fusion.head import Head, head_label
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import decode_layer, encode_layer
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.spec import StudySpec
from mfas_optuna.training.fused import FusedModel
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.processes import Processes
from mfas_optuna.training.unfrozen import UnfrozenResult, score_fused, train_unfrozen

_log = logging.getLogger(__name__)

Trainable = Callable[[], tuple[Dataset, Mapping[str, Source]]]
"""Gives the data, and trained backbones with their taps that may be changed."""


class UnfrozenStep:
    """Trains what the first step chose together with the backbones; what is stored already is not trained again."""

    def __init__(
        self,
        spec: StudySpec,
        features: FeatureSet,
        study: optuna.Study,
        frozen: FrozenStep,
        trainable: Trainable,
        *,
        places: Places,
        device: torch.device,
        processes: Processes | None = None,
        progress: Progress = silent,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """Keep the settings.

        Args:
            spec: The study's settings.
            features: Cached features, for their layout and statistics.
            study: The study of final trainings.
            frozen: The first step, which restores its heads.
            trainable: Gives the data and backbones anew at each call.
            places: Where weights are kept.
            device: Where models are trained.
            processes: This process and those that train with it, each on its own device; None: there is one.
            progress: Told of batches done.
            say: Told what is trained next.
        """
        self._spec, self._features, self._study = spec, features, study
        self._frozen, self._trainable, self._places = frozen, trainable, places
        self._store = places.store
        self._device, self._progress, self._say = device, progress, say
        self._processes = Processes(device) if processes is None else processes

    def follow(self, number: int) -> None:
        """Take this process's part in a training that the first process announced; that one stores the result.

        Args:
            number: Of the stored training of the first step.
        """
        first = next(final for final in finals.read(self._study) if final.number == number)
        dataset, sources = self._trainable()
        with contextlib.suppress(TrainingDiverged):  # In all processes alike; the first says so.
            self._fit(first, _after(first), dataset, sources)

    def run(self, choices: Mapping[str, Choice], *, n_seeds: int) -> dict[str, Choice]:
        """Train what was chosen, and score it on the test split, each reading with its entry in the ledger.

        Args:
            choices: What the first step chose, by method.
            n_seeds: How many of its seeds, from 0.

        Returns:
            The same choices in the second step. One of which every training diverged is missing, with a warning.

        Raises:
            HomeError: Weights cannot be written.
        """
        result = {}
        for number, (method, choice) in enumerate(choices.items(), start=1):
            title = finals.read_titles(self._study)[method]
            self._say(f"Backbones and fusion together: {title} ({number} of {len(choices)} methods)")
            for seed in range(n_seeds):
                if seed in choice.by_seed:
                    self._train(choice.by_seed[seed], title)
            found = self._stored(choice)
            if found is not None:
                result[method] = found
        return result

    def _stored(self, choice: Choice) -> Choice | None:
        for other in finals.choices(finals.read(self._study)):
            is_same = (other.method, other.head, other.recipe) == (choice.method, choice.head, choice.recipe)
            if is_same and other.step == "unfrozen":
                return other
        return None

    def _train(self, first: Final, title: str) -> None:
        """Train what is not stored yet, store it, and score it; one that diverges is left out with a warning."""
        training = _after(first)
        stored = {final.training.key: final.number for final in finals.read(self._study)}
        number = stored.get(training.key)
        if number is not None and number in finals.test_scores(finals.read_ledger(self._study)):
            return
        dataset, sources = self._trainable()
        if number is None:
            self._processes.announce(first.number)
            started = time.perf_counter()
            try:
                result = self._fit(first, training, dataset, sources)
            except TrainingDiverged as error:
                self._say(f"Warning: {title}, unfrozen: {error}")
                return
            finals.add(
                self._study,
                training,
                FinalResult(
                    validation_score=result.score,
                    epoch_scores=tuple(result.epoch_scores),
                    best_epoch=result.best_epoch,  # The first score is of before any step.
                    n_parameters=first.result.n_parameters,
                    n_fusion_parameters=first.result.n_fusion_parameters,
                    training_s=time.perf_counter() - started,
                    weights=self._store.put(encode_layer(result.state)),
                    torch_version=torch.__version__,
                    device=self._device.type,
                ),
                title,
            )
            shutil.rmtree(self._checkpoint(training), ignore_errors=True)
        self._score_on_test(training, dataset, sources)

    def _fit(
        self, first: Final, training: FinalTraining, dataset: Dataset, sources: Mapping[str, Source]
    ) -> UnfrozenResult:
        """Train, together with the other processes where there are such."""
        return train_unfrozen(
            self._model(self._frozen.restore(first), sources),
            dataset,
            self._spec.final.unfrozen,
            device=self._device,
            seed=seed_from(training.seed, "unfrozen") % 2**62,
            metric=self._spec.metric,
            is_balanced=self._spec.is_balanced,
            augmentation=self._spec.augmentation,
            checkpoint=self._checkpoint(training),
            processes=self._processes,
            progress=self._progress,
        )

    def _checkpoint(self, training: FinalTraining) -> Path:
        return self._places.partial / training.key[:16]

    def _model(self, head: Head, sources: Mapping[str, Source]) -> FusedModel:
        features = self._features
        is_standardized = self._spec.training.standardize
        return FusedModel(
            sources,
            features.layout,
            head,
            n_outputs=features.target.n_outputs,
            generator=torch.Generator().manual_seed(0),
            standardization=features.layout.standardization(features.mean, features.std) if is_standardized else None,
        ).to(self._device)

    def _score_on_test(self, training: FinalTraining, dataset: Dataset, sources: Mapping[str, Source]) -> None:
        final = next(each for each in finals.read(self._study) if each.training.key == training.key)
        model = self._model(self._frozen.build(training), sources)
        model.load_state_dict(decode_layer(self._store.get(final.result.weights)))
        scale = LabelScale.of(dataset.target.kind, dataset.splits["train"].labels)
        score = score_fused(model, dataset.splits["test"], self._spec.metric, self._device, scale)
        finals.write_test_read(
            self._study,
            purpose=PURPOSE,
            score=score,
            what=f"{training.method}, unfrozen, {head_label(training.head)}, seed {training.seed}",
            trial=final.number,
        )


def _after(first: Final) -> FinalTraining:
    """Return the training of the second step that starts from what the first left."""
    before = first.training
    return FinalTraining(before.method, before.head, "unfrozen", before.recipe, before.seed)
