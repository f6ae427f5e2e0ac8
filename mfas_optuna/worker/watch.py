"""What all workers of a study do, told to a listener."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.worker.request import Listener, SearchRequest

_LOOK_EVERY_S = 0.5
_WORK_FOR_LOOKING, _RAREST_S = 50, 10.0
"""Looking takes no more than a fiftieth of a core, as long as ten seconds between two looks allow that."""


class Watch:
    """Looks at a study now and then, and tells of trials that have ended since and of how the study stands."""

    def __init__(
        self, request: SearchRequest, opened: database.BatchStorage, study: optuna.Study, listener: Listener
    ) -> None:
        self._request = request
        self._opened = opened
        self._study = study
        self._listener = listener
        self._seen = {trial.number for trial in self._ended(study.get_trials(deepcopy=False))}
        self._look_at = time.monotonic()

    def look(self, *, now: bool = False) -> None:
        """Look, when the last time was long enough ago or it is to be done now."""
        if not now and time.monotonic() < self._look_at:
            return
        began_s = time.process_time()  # Not by the clock, which says how busy the machine is.
        trials = self._study.get_trials(deepcopy=False)
        new = [trial for trial in self._ended(trials) if trial.number not in self._seen]
        n_finished = sum(records.is_finished(trial) for trial in trials)
        n_finished -= sum(records.is_finished(trial) for trial in new)
        for trial in sorted(new, key=lambda trial: (trial.datetime_complete or datetime.min, trial.number)):
            self._seen.add(trial.number)
            n_finished += records.is_finished(trial)
            n_planned = self._request.spec.n_trials_planned()
            self._listener.trial_ended(self._study, trial, n_finished, n_planned)
        n_workers = len(self._opened.patience.run(lambda: database.living(self._opened, self._study._study_id)))
        self._listener.standing(n_workers, count_failures(trials))
        pause_s = min(_RAREST_S, _WORK_FOR_LOOKING * (time.process_time() - began_s))
        self._look_at = time.monotonic() + max(_LOOK_EVERY_S, pause_s)

    @staticmethod
    def _ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.state.is_finished()]


def count_failures(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Return the number of failed trials for each reason."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    return dict(Counter(records.read_failure(trial.system_attrs) or "its worker ended" for trial in failed))
