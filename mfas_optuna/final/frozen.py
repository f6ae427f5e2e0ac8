"""The first step: every method's heads on the cached features of frozen backbones.

For each method, everything that validation chooses from (its heads, widths, recipes) is trained with the tuning seeds;
what is chosen is trained with all seeds, and those trainings alone are scored on the test split, each reading with its
entry in the ledger.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor

from mfas_optuna import finals
from mfas_optuna.baselines import head_from_record, width_for
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.finals import Choice, Final, FinalResult, FinalTraining
from mfas_optuna.fusion.head import Head, HeadSettings, Method, head_label
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import BlobStore, decode_layer, encode_layer
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.spec import FinalSettings, Recipe, StudySpec
from mfas_optuna.training.brief import BriefData, standardized_rows
from mfas_optuna.training.final import score_head, train_head
from mfas_optuna.training.labels import LabelScale

_log = logging.getLogger(__name__)

PURPOSE = "comparison of methods, after every choice was made"


@dataclass(frozen=True)
class Places:
    """Where final trainings keep what they make.

    Attributes:
        store: Store of the weight blobs.
        partial: Folder of the trainings under way.
    """

    store: BlobStore
    partial: Path


class FrozenStep:
    """Trains methods of one study on its cached features; what is stored already is not trained again."""

    def __init__(
        self,
        spec: StudySpec,
        features: FeatureSet,
        study: optuna.Study,
        *,
        places: Places,
        device: torch.device,
        progress: Progress = silent,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """Load the features onto the device; those of the test split are not touched.

        Args:
            spec: The study's settings.
            features: Cached features of every split.
            study: The study of final trainings.
            places: Where weights are kept.
            device: Where heads are trained.
            progress: Told of each epoch.
            say: Told of what was chosen.
        """
        self._spec, self._settings = spec, spec.final
        self._features, self._study, self._places = features, study, places
        self._store = places.store
        self._device, self._progress, self._say = device, progress, say
        self._data = BriefData.load(
            features,
            standardize=spec.training.standardize,
            device=device,
            metric=spec.metric,
            is_balanced=spec.is_balanced,
        )
        self._test: tuple[Tensor, Tensor] | None = None

    @property
    def tuning_seeds(self) -> list[int]:
        """Seeds that everything which validation chooses from is trained with."""
        return tuning_seeds(self._settings)

    def run(self, methods: Sequence[Method], *, n_seeds: int, n_parameters: int | None = None) -> dict[str, Choice]:
        """Train methods, choose for each by validation, and score what was chosen on the test split.

        Args:
            methods: What is compared.
            n_seeds: Seeds that what is chosen is trained with, from 0; the tuning seeds at least.
            n_parameters: What each head may have at most: its width follows from that. None: the settings' widths.

        Returns:
            What was chosen of each method. One of which nothing could be trained is missing, with a warning.

        Raises:
            HomeError: Weights cannot be written.
        """
        finals.write_titles(self._study, {method.name: method.title for method in methods})
        seeds = range(max(n_seeds, len(self.tuning_seeds)))
        result = {}
        for number, method in enumerate(methods, start=1):
            title = f"{method.title} ({number} of {len(methods)} methods)"
            choice = self._choose(method, n_parameters, title)
            if choice is None:
                self._say(f"Warning: {method.title}: no training of it came to an end; it is left out")
                continue
            for seed in seeds:
                self._train(FinalTraining(method.name, choice.head, "frozen", choice.recipe, seed), method, title)
            self._score_on_test(method.name)
            result[method.name] = self._chosen(method.name)
            self._report(method, result[method.name], n_parameters)
        return result

    def _report(self, method: Method, choice: Choice, most: int | None) -> None:
        scores = [final.result.validation_score for final in choice.by_seed.values()]
        n_parameters = next(iter(choice.by_seed.values())).result.n_parameters
        self._say(
            f"{method.title}: {head_label(choice.head)}, {n_parameters:,} parameters, validation "
            f"{sum(scores) / len(scores):.4f} over {len(scores)} seeds"
        )
        if most is not None and n_parameters > most:
            self._say(f"Warning: {method.title}: {n_parameters:,} parameters are more than {most:,}, even so narrow")

    # What validation chooses from.

    def _choose(self, method: Method, n_parameters: int | None, title: str) -> Choice | None:
        for training in self._tuning(method, n_parameters):
            self._train(training, method, title)
        return finals.chosen(finals.read(self._study), method.name, "frozen", self.tuning_seeds)

    def _tuning(self, method: Method, n_parameters: int | None) -> Iterator[FinalTraining]:
        for settings in method.heads:
            for width in self._widths(settings, n_parameters):
                head = settings.with_width(width)
                n_learned = self._build(head, Recipe(), 0).n_parameters
                recipes = self._settings.recipes if n_learned else (Recipe(),)  # Else they would make no difference.
                for recipe, seed in itertools.product(recipes, self.tuning_seeds):
                    yield FinalTraining(method.name, head.as_record(), "frozen", recipe.model_dump(mode="json"), seed)

    def _widths(self, settings: HeadSettings, n_parameters: int | None) -> Sequence[int]:
        if not settings.has_width or n_parameters is None:
            return self._settings.widths if settings.has_width else (0,)
        return (width_for(settings, self._features.layout, self._features.target.n_outputs, n_parameters),)

    # One training.

    def _train(self, training: FinalTraining, method: Method, title: str) -> None:
        """Train what is not stored yet, and store it; one that diverges is left out with a warning."""
        if training.key in {final.training.key for final in finals.read(self._study)}:
            return
        recipe = Recipe.model_validate(training.recipe)
        head = self.build(training).to(self._device)
        checkpoint = self._places.partial / training.key[:16]
        started = time.perf_counter()
        try:
            result = train_head(
                head,
                self._data,
                self._settings,
                recipe,
                seed=seed_from(training.seed, "final") % 2**62,
                checkpoint=checkpoint,
                key={"features": self._features.folder.name, "training": training.key},
                progress=self._progress,
                what=f"{title}, {head_label(training.head)}, seed {training.seed}",
            )
        except TrainingDiverged as error:
            self._say(f"Warning: {method.title}, {head_label(training.head)}: {error}")
            return
        stored = FinalResult(
            validation_score=result.score,
            epoch_scores=tuple(result.epoch_scores),
            best_epoch=result.best_epoch + 1,
            n_parameters=head.n_parameters,
            n_fusion_parameters=head.n_fusion_parameters,
            training_s=time.perf_counter() - started,
            weights=self._store.put(encode_layer(result.state)) if result.state else "",
            torch_version=torch.__version__,
            device=self._device.type,
        )
        finals.add(self._study, training, stored, method.title)
        shutil.rmtree(checkpoint, ignore_errors=True)

    def _build(self, settings: HeadSettings, recipe: Recipe, seed: int) -> Head:
        generator = torch.Generator().manual_seed(seed_from(seed, "head") % 2**62)
        layout, n_outputs = self._features.layout, self._features.target.n_outputs
        return settings.build(layout, n_outputs, dropout=recipe.dropout, generator=generator)

    # The test split.

    def _chosen(self, method: str) -> Choice:
        choice = finals.chosen(finals.read(self._study), method, "frozen", self.tuning_seeds)
        assert choice is not None  # It was found before.
        return choice

    def _score_on_test(self, method: str) -> None:
        choice = self._chosen(method)
        scored = finals.test_scores(finals.read_ledger(self._study))
        for seed, final in sorted(choice.by_seed.items()):
            if final.number not in scored:
                finals.write_test_read(
                    self._study,
                    purpose=PURPOSE,
                    score=self.test_score(final),
                    what=f"{method}, {head_label(final.training.head)}, seed {seed}",
                    trial=final.number,
                )

    def test_score(self, final: Final) -> float:
        """Return the metric of a stored training on the test split; whoever calls this writes the ledger."""
        head = self.restore(final)
        if self._test is None:
            scale = LabelScale.of(self._features.target.kind, self._features.labels("train"))
            rows = standardized_rows(self._features, "test", standardize=self._spec.training.standardize)
            self._test = rows.to(self._device), scale.tensor(self._features.labels("test"), self._device)
        return score_head(head, *self._test, self._data.loss, self._spec.metric)

    def build(self, training: FinalTraining) -> Head:
        """Return the untrained head of a training, on the CPU."""
        recipe = Recipe.model_validate(training.recipe)
        return self._build(head_from_record(training.head), recipe, training.seed)

    def restore(self, final: Final) -> Head:
        """Return the head of a stored training with its weights, on the device, in eval mode."""
        head = self.build(final.training)
        if final.result.weights:
            head.load_state_dict(decode_layer(self._store.get(final.result.weights)))
        return head.to(self._device).eval()


def tuning_seeds(settings: FinalSettings) -> list[int]:
    """Return the seeds that everything which validation chooses from is trained with."""
    return list(range(settings.n_tuning_seeds))


def common_settings(spec: StudySpec, features: str, n_parameters: int | None = None) -> Mapping[str, Any]:
    """Return what all final trainings of a study have in common, as JSON values.

    Args:
        spec: The study's settings.
        features: Fingerprint of its features.
        n_parameters: What each network may learn at most, where that was asked for.
    """
    return {
        **({} if n_parameters is None else {"n_parameters": n_parameters}),
        "features": features,
        "tuning_seeds": tuning_seeds(spec.final),
        "training": spec.final.model_dump(
            mode="json",
            # What came later and changes nothing is left out, so that what was begun before goes on.
            exclude={"widths", "recipes", "n_tuning_seeds"} | ({"min_steps"} if spec.final.min_steps == 0 else set()),
        ),
    }
