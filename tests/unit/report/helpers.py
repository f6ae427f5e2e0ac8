"""Stored studies to report on, made by the writers of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.finals import FinalResult, FinalTraining, Step
from mfas_optuna.report import StudyResults, collect
from mfas_optuna.report.data import MethodResult, Search, StepResult
from mfas_optuna.spec import StudySpec, find_study, load_spec

RECIPE = {"learning_rate": 3e-3, "weight_decay": 0.0, "dropout": 0.1}
NETWORK = {"kind": "network", "notation": "[(1,1,1),(2,1,2)]", "layers": [], "width": 64}
FOUND = {
    **NETWORK,
    "layers": [
        {"features": {"audio": ["conv1"], "image": ["conv2"]}, "activation": "relu", "operator": "concatenation"},
        {"features": {"audio": ["conv2"], "image": ["conv1"]}, "activation": "tanh", "operator": "concatenation"},
    ],
}
ARGUMENTS = "--study digits"


class Database:
    """A database file with one search."""

    def __init__(self, folder: Path, study: str = "digits", name: str | None = None) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'mfas.db'}"
        self.spec: StudySpec = load_spec(find_study(study))
        self.name = name or study
        self.storage = database.open_storage(self.url)
        self.search = self.add_search(self.name, self.spec)

    def add_search(self, name: str, spec: StudySpec, scores: Sequence[float] = (0.5, 0.7, 0.6)) -> optuna.Study:
        """Store a search with a complete trial of each score, and a failed one."""
        study = optuna.create_study(storage=self.storage, study_name=name, direction="maximize")
        records.write_study(study, scientific=spec.scientific(), fingerprint=spec.fingerprint())
        for number, score in enumerate(scores, start=1):
            shown = {
                records.ARCHITECTURE: f"[({number},1,1)]",
                records.N_PARAMETERS: 1000 * number,
                records.TORCH: "2.9, cpu",
            }
            study.add_trial(create_trial(value=score, user_attrs=shown))
        study.add_trial(create_trial(state=TrialState.FAIL))
        return study

    def describe(self, card: str, stand_in: str = "") -> None:
        """Store what the scores rest on."""
        backbones = {"audio": {"task": None, "validation_score": 0.4, "test_score": 0.41}}
        records.write_study_inputs(self.search, backbones=backbones, features="ab", card=card, stand_in=stand_in)
        records.add_timing(self.search, "search", 90.0)

    @property
    def final(self) -> optuna.Study:
        """The study of final trainings, made where there is none."""
        return optuna.create_study(
            storage=self.storage, study_name=finals.final_name(self.name), direction="maximize", load_if_exists=True
        )

    def train(
        self,
        method: str,
        title: str,
        test: Sequence[float | None],
        *,
        validation: float = 0.8,
        step: Step = "frozen",
        n_parameters: int = 1234,
        head: Mapping[str, object] = NETWORK,
    ) -> None:
        """Store a method's trainings, seeds from 0; a test score of None was not read."""
        study = self.final
        if finals.read_settings(study) is None:
            finals.write_settings(study, {"tuning_seeds": [0]})
        finals.write_titles(study, {method: title})
        for seed, score in enumerate(test):
            result = FinalResult(validation, (0.1, validation), 2, n_parameters, 1000, 60.0, "ab", "2.9", "cpu")
            training = FinalTraining(method, dict(head), step, RECIPE, seed)
            finals.add(study, training, result, title)
            number = next(final.number for final in finals.read(study) if final.training.key == training.key)
            if score is not None:
                finals.write_test_read(study, purpose="comparison", score=score, what=title, trial=number)

    def collect(self) -> StudyResults:
        """Read everything back."""
        return collect(self.url, self.name, self.spec, ARGUMENTS)


def fill_with(stored: Database, name: str) -> None:
    """Store everything that a report shows, under one name wherever a name is the user's."""
    stored.describe(f"digits: {name}", stand_in=name)
    choices = {
        "depth": IntDistribution(1, 1),
        f"layer1.{name}": CategoricalDistribution([name, "b"]),
        "layer1.image": CategoricalDistribution(["c"]),
        "layer1.activation": CategoricalDistribution([name]),
    }
    parameters = {"depth": 1, f"layer1.{name}": name, "layer1.image": "c", "layer1.activation": name}
    shown = {records.ARCHITECTURE: name, records.N_PARAMETERS: 5, records.TORCH: name}
    stored.search.add_trial(create_trial(value=0.95, params=parameters, distributions=choices, user_attrs=shown))
    failed = {records.FAILURE_REASON: "error", records.FAILURE_MESSAGE: name}
    stored.search.add_trial(create_trial(state=TrialState.FAIL, user_attrs=failed))
    records.add_timing(stored.search, name, 5.0)
    head = {"kind": "mlp", "label": name, "features": [[name, name]], "width": 3}
    stored.train("mfas", "MFAS", (0.9, 0.91), head=FOUND)
    stored.train("late", name, (0.8, 0.81), head=head)


class Results:
    """Results that were never stored."""

    def __init__(self) -> None:
        search = Search("mfas", "MFAS", "digits", {"COMPLETE": 3}, 3, (), None, 0, {}, ())
        self.made = StudyResults(
            "digits", ARGUMENTS, "digits", "accuracy", "", "", {}, None, {}, (search,), (), {}, (), (), ()
        )  # fmt: skip

    def train(
        self,
        method: str,
        title: str,
        test: Sequence[float | None],
        *,
        validation: float | Sequence[float] = 0.8,
        step: Step = "frozen",
        n_parameters: int = 1234,
    ) -> None:
        """Add a method's trainings, seeds from 0; a test score of None was not read."""
        scores = [validation] * len(test) if isinstance(validation, float) else validation
        result = StepResult(
            step=step,
            head=NETWORK,
            recipe=RECIPE,
            n_parameters=n_parameters,
            n_fusion_parameters=None,
            validation=dict(enumerate(scores)),
            test={seed: score for seed, score in enumerate(test) if score is not None},
            training_s={},
        )
        methods = {each.name: each for each in self.made.methods}
        before = methods.get(method, MethodResult(method, title, {}))
        methods[method] = replace(before, steps={**before.steps, step: result})
        self.made = replace(self.made, methods=tuple(methods.values()))
