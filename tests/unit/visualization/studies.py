"""Studies to draw."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState, create_trial

from mfas_optuna import Architecture, MFASSampler, SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.trials import LayerWeights, TrialRecord

SPACE = SearchSpace({"audio": ["conv1", "conv2"], "image": ["conv1", "conv2", "fc"]}, ["relu", "tanh"], 3)
HOSTILE = '<img src=x onerror="window.hit=1"></script><script>window.hit=2</script>[a](javascript:hit)'


def score_of(architecture: Architecture) -> float:
    """Return a score that prefers the last features."""
    value = 0.5 + 0.02 * architecture.depth
    for layer in architecture.layers:
        value += 0.02 * sum(layer.features) - 0.01 * layer.activation
    return value


def record_of(architecture: Architecture, number: int, started_from: str | None) -> TrialRecord:
    """Return what a trial of a search records; its first layer starts from another's weights."""
    weights = tuple(
        LayerWeights(f"{layer}:8:4", started_from if layer == 0 else None, f"{number}:{layer}")
        for layer in range(architecture.depth)
    )
    size = sum(100 + 10 * sum(layer.features) for layer in architecture.layers)
    return TrialRecord(architecture.paper_notation(), size, 1, 0.5, 0, 1, "2.9", "cpu", weights)


def searched(
    *, n_iterations: int = 2, samples_per_step: int = 6, n_trials: int = 200, direction: str = "maximize"
) -> optuna.Study:
    """Return a finished search of the sampler, in memory."""
    sampler = MFASSampler(SPACE, n_iterations=n_iterations, samples_per_step=samples_per_step, seed=0)
    study = optuna.create_study(study_name="drawn", direction=direction, sampler=sampler)

    def objective(trial: optuna.Trial) -> float:
        architecture = SPACE.suggest(trial)
        before = None if trial.number == 0 else f"{trial.number - 1}:0"
        records.write_result(trial, record_of(architecture, trial.number, before))
        score = score_of(architecture)
        return score if direction == "maximize" else -score

    study.optimize(objective, n_trials=n_trials)
    return study


def randomly_searched(n_trials: int) -> optuna.Study:
    """Return a search without steps, predictions and records."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: score_of(SPACE.suggest(trial)), n_trials=n_trials)
    return study


def failed() -> optuna.Study:
    """Return a study of which every trial failed."""
    study = optuna.create_study(direction="maximize")
    study.add_trials([create_trial(state=TrialState.FAIL) for _ in range(3)])
    return study
