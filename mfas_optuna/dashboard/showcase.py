"""What the dashboard shows of a search besides its trials: a note, plots and drawings of the best networks."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.dashboard import attributes as kept
from mfas_optuna.dashboard.drawings import KIND, Drawings, drawing_of
from mfas_optuna.spec import StudySpec
from mfas_optuna.storage import Patience
from mfas_optuna.target import METRIC_TITLES
from mfas_optuna.visualization import plot_search
from mfas_optuna.visualization.theme import figure_of

_log = logging.getLogger(__name__)

SEARCH_PLOT, BEST_PLOT = "mfas-search", "mfas-best-network"
"""Names of the plots; each replaces the one before."""
END = "*The text above is written anew after each step; what is written below this line stays.*"
WORK_FOR_SHOWING = 20
_SPECIAL = re.compile(r"[\\`*_|~#!\[\]()]")
_HEIGHT = 450
"""Of the dashboard's place for a plot, in pixels; of a higher one it cuts off the rest."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A network of those that are best.

    Attributes:
        trial: Which scored it.
        artifact_id: Of its drawing.
        svg: The drawing.
    """

    trial: FrozenTrial
    artifact_id: str
    svg: bytes


class Showcase:
    """Keeps what the dashboard shows of a study up to date. What cannot be drawn is said once and stops nothing."""

    def __init__(self, spec: StudySpec, drawings: Drawings) -> None:
        """Say what is searched, and where drawings are kept.

        Args:
            spec: The study's settings.
            drawings: The store of the drawings.
        """
        self._spec = spec
        self._drawings = drawings
        self._has_complained = False
        self._may_show_at = time.monotonic()

    def after(self, study: optuna.Study, ended: Iterable[FrozenTrial], patience: Patience) -> None:
        """Show how a study stands, when the trial that led its step is among some that have just ended.

        So one worker does it once a step, without asking the others; less often where steps are so short that it would
        take more than a twentieth of them. A sampler without steps has one whenever it has drawn as many networks as a
        step of Algorithm 1 has.
        """
        if time.monotonic() >= self._may_show_at and any(self._leads(trial) for trial in ended):
            began = time.monotonic()
            self.show(study, patience)
            ended_at = time.monotonic()
            self._may_show_at = ended_at + WORK_FOR_SHOWING * (ended_at - began)

    def _leads(self, trial: FrozenTrial) -> bool:
        if records.read_plan(trial.system_attrs) is not None:
            return True
        ordinal = records.read_ordinal(trial.system_attrs)
        return ordinal is not None and ordinal % self._spec.search.samples_per_step == 0

    def show(self, study: optuna.Study, patience: Patience) -> None:
        """Show how a study stands; write nothing when that is shown already.

        Files come first, then everything else in one transaction, so that what the database has is there and whole.
        Two workers that do it at once take turns; what either writes is true.

        Raises:
            optuna.exceptions.StorageInternalError: The database could not be read or written, and not by patience.
        """
        trials = study.get_trials(deepcopy=False)
        if not any(trial.state.is_finished() for trial in trials):
            return
        before = kept.read_attributes(study)
        note = describe(study, self._spec, trials)
        try:
            drawn = self._draw(study, trials)
            for each in drawn:
                if not self._drawings.has(each.artifact_id):
                    self._drawings.write(each.artifact_id, io.BytesIO(each.svg))
            is_pictured = not drawn or drawn[0].artifact_id in kept.read_plot(before, BEST_PLOT)
            if is_pictured and _with_note(before, note) == kept.read_note(before):
                return
            figure = plot_search(study)
            figure.layout.height = _HEIGHT
            plots = {SEARCH_PLOT: figure.to_json()}
            if not is_pictured:
                plots[BEST_PLOT] = picture_of(drawn[0]).to_json()
        except Exception as error:  # No picture is worth a search.
            if database.is_database_error(error):
                raise
            self._complain(study, error)
            drawn, plots = [], {}

        def write() -> None:
            with database.batch(study, []):
                now = kept.read_attributes(study)
                for name, figure in plots.items():
                    kept.write_plot(study, now, name, figure)
                for each in drawn:
                    trial_id = records.trial_id_of(each.trial)
                    if kept.artifact_key(trial_id, each.artifact_id) not in now:
                        filename = f"trial-{each.trial.number}.svg"
                        kept.write_artifact(study, trial_id, each.artifact_id, filename, KIND)
                kept.write_note(study, now, _with_note(now, note))

        patience.run(write)

    def _draw(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[Drawn]:
        by_number = {trial.number: trial for trial in trials}
        drawn = []
        for network in records.best_networks(trials, self._spec.search.n_finalists):
            trial = by_number[network.number]
            found = drawing_of(study.study_name, trial)
            if found is not None:
                drawn.append(Drawn(trial, *found))
        return drawn

    def _complain(self, study: optuna.Study, error: Exception) -> None:
        if not self._has_complained:
            self._has_complained = True
            _log.warning(
                "Study %r: its pictures for the dashboard could not be made, and the search goes on without: %s: %s",
                study.study_name, type(error).__name__, error,
            )  # fmt: skip


def describe(study: optuna.Study, spec: StudySpec, trials: Sequence[FrozenTrial]) -> str:
    """Return what a study is and how it stands as Markdown; no name in it is markup.

    Args:
        study: The study.
        spec: Its settings.
        trials: All its trials.
    """
    stand_in, card = records.read_stand_in(study), records.read_card(study).strip().splitlines()
    metric = METRIC_TITLES[spec.metric]
    lines = [f"### {_inert(spec.title)}", ""]
    if stand_in:
        lines += [f"**STAND-IN DATA, generated: {_inert(stand_in)}.** Scores say nothing of the real data.", ""]
    lines.append(f"- Data{'' if stand_in else ' (no stand-in)'}: {_inert(next(_said(card), 'no card yet'))}")
    n_finished = sum(map(records.is_finished, trials))
    n_failed = sum(
        trial.state == TrialState.FAIL and records.read_failure(trial.system_attrs) not in records.LOST
        for trial in trials
    )
    failed = f", {n_failed} failed" if n_failed else ""
    lines.append(f"- Trials: {n_finished} of {spec.n_trials_planned()} finished{failed}; sampler {spec.search.sampler}")
    scores = {name: found.get("validation_score") for name, found in (records.read_backbones(study) or {}).items()}
    alone = [f"{_inert(name)} {score:.4f}" for name, score in scores.items() if score is not None]
    if alone:
        lines.append(f"- Backbones alone, validation {metric}: {', '.join(alone)}")
    best = records.best_networks(trials, spec.search.n_finalists)
    if best:
        lines += ["", f"Best so far, by validation {metric}; the drawing of each lies with its trial:", ""]
    for position, network in enumerate(best, start=1):
        size = "" if network.n_parameters is None else f", {network.n_parameters:,} parameters"
        lines.append(
            f"{position}. **{network.score:.4f}**, trial {network.number}{size}: {_inert(network.architecture)}"
        )
    lines += ["", "`mfas-optuna report` says whether the search was worth it.", "", "---", "", END]
    return "\n".join(lines)


def picture_of(drawn: Drawn) -> go.Figure:
    """Return a plot that is a drawing; `layout.meta["artifact_id"]` says which."""
    source = f"data:{KIND};base64,{base64.b64encode(drawn.svg).decode()}"
    title = f"Best network so far: trial {drawn.trial.number}, {drawn.trial.values[0]:.4f}"
    image = {"source": source, "xref": "paper", "yref": "paper", "x": 0, "y": 1, "sizex": 1, "sizey": 1}
    images = [{**image, "sizing": "contain", "layer": "above"}]
    figure = figure_of([], title, height=_HEIGHT, images=images)
    figure.layout.meta = {"title": title, "artifact_id": drawn.artifact_id}
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _said(card: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a data card that say where the data come from."""
    return (line for line in card if not line.startswith("STAND-IN"))


def _with_note(attributes: dict[str, object], note: str) -> str:
    """Return a note with what somebody wrote below the one before, or in place of it."""
    before = kept.read_note(attributes)
    written, line, below = before.partition(END)
    if not line:
        below = written and f"\n\n{written}"
    return note + below


def _inert(text: str) -> str:
    """Return a text that the dashboard, which reads HTML in Markdown, shows as it is in one line."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], html.escape(" ".join(text.split()), quote=False))
