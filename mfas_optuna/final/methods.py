"""What searches found, as methods beside the fixed ones."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from mfas_optuna import trials as records
from mfas_optuna.finals import SEARCH_TITLES
from mfas_optuna.fusion.head import Method, NetworkSettings
from mfas_optuna.space import SearchSpace
from mfas_optuna.spec import SamplerName


def searched_method(
    sampler: SamplerName, trials: Sequence[FrozenTrial], space: SearchSpace, n_candidates: int, *, n_trials: int | None
) -> Method | None:
    """Return the best networks of a search as a method; None where it has none.

    Args:
        sampler: Who searched.
        trials: Of its study.
        space: Its space.
        n_candidates: How many networks, the best by validation score first.
        n_trials: Trials that count: the first so many that ended complete or pruned; None: all.
    """
    finished = [trial for trial in trials if records.is_finished(trial)]
    finished.sort(key=lambda trial: trial.number)
    best = records.best_networks(finished[:n_trials], n_candidates)
    found = [(space.from_parameters(network.parameters)) for network in best]
    heads = tuple(NetworkSettings.of(architecture, space, 1) for architecture in found if architecture is not None)
    return Method(sampler, SEARCH_TITLES[sampler], heads) if heads else None
