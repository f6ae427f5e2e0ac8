"""Everything that the commands do, from Python: a study in, a `FusionResult` out.

study = FusionStudy.open("digits")
study.search()
study.train(seeds=4)
study.baselines(seeds=4)
result = study.result()
print(result.verdict.sentence)
result.export("out")
"""

from __future__ import annotations

import io
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from mfas_optuna.export import Exported, ExportRequest, export_study
from mfas_optuna.export.choose import BEST
from mfas_optuna.finals import Step
from mfas_optuna.report import (
    StudyResults,
    Verdict,
    collect,
    document,
    judge,
    markdown,
    render_csv,
    render_json,
    text,
)
from mfas_optuna.report.data import MethodResult
from mfas_optuna.trials import RankedNetwork
from mfas_optuna.worker.final import FinalOutcome, FinalRequest
from mfas_optuna.worker.final import baselines as run_baselines
from mfas_optuna.worker.final import train as run_train
from mfas_optuna.worker.request import Listener, SearchOutcome, SearchRequest
from mfas_optuna.worker.search import prepare as run_prepare
from mfas_optuna.worker.search import search as run_search

_log = logging.getLogger("mfas_optuna")


class _Logged:
    """Tells a logger what is being done, for those who gave no listener."""

    def say(self, text: str) -> None:
        _log.info(text)

    def progress(self, what: str, done: int, total: int) -> None:
        _log.debug("%s: %d of %d", what, done, total)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        _log.info("%d of %d: trial %d %s %s", n_finished, n_planned, trial.number, trial.state.name, trial.value)

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        _log.debug("%d workers; failed trials: %s", n_workers, dict(n_by_failure) or "none")


@dataclass(frozen=True)
class FusionStudy:
    """A study that is searched, trained, compared and shipped; each method goes on from what is stored.

    Attributes:
        request: What is searched, and where everything lies.
        arguments: Options of the command line that name the same study.
        listener: Told what is being done.
    """

    request: SearchRequest
    arguments: str
    listener: Listener

    @staticmethod
    def open(
        study: str | PathLike[str],
        *,
        name: str | None = None,
        storage: str | None = None,
        home: str | PathLike[str] | None = None,
        data_root: str | PathLike[str] | None = None,
        sampler: str | None = None,
        mode: str | None = None,
        n_trials: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        joint: int | None = None,
        weights: str | PathLike[str] | None = None,
        listener: Listener | None = None,
    ) -> FusionStudy:
        """Return a study by its name or file; what is not given is the environment's, the file's or the default.

        Args:
            study: Name of a study, or path of a study file.
            name: Its name in the database; None: the study's, with what differs from its file.
            storage: The database; None: MFAS_STORAGE, the study file's, or mfas.db in the home folder.
            home: Folder that everything is kept in; None: MFAS_HOME, or `storage` here.
            data_root: Folder of raw data; None: MFAS_DATA, or none.
            sampler: mfas, random or tpe; None: the study file's.
            mode: Of the mfas sampler; None: the study file's.
            n_trials: How many trials; None: the study file's.
            seed: Of the search; None: the study file's.
            device: auto, cpu, cuda or cuda:N.
            joint: How many networks are trained at once; None: MFAS_JOINT, or as suits the study.
            weights: Folder or URL of the weights; None: MFAS_WEIGHTS, the study file's, or in the home folder.
            listener: Told what is being done; None: the logger `mfas_optuna`.

        Raises:
            MfasError: There is no such study, its file is not valid, or a setting is not.
        """
        request = SearchRequest.of(
            str(study),
            name=name,
            storage=storage,
            home=None if home is None else Path(home),
            sampler=sampler,
            mode=mode,
            n_trials=n_trials,
            seed=seed,
            device=device,
            data_root=None if data_root is None else Path(data_root),
            joint=None if joint is None else str(joint),
            weights=None if weights is None else str(weights),
        )
        arguments = f"--study {shlex.quote(str(study))}" + ("" if name is None else f" --name {shlex.quote(name)}")
        return FusionStudy(request, arguments, listener or _Logged())

    def prepare(self, *, force: bool = False) -> None:
        """Make data, backbones and features; `force` makes features anew.

        Raises:
            MfasError: Something a user can mend is wrong; the message says what.
        """
        run_prepare(self.request, self.listener, force=force)

    def search(self) -> SearchOutcome:
        """Search, or go on with it, to the end.

        Raises:
            Interrupted: A signal asked for the end; what was stored stays.
            MfasError: Something a user can mend is wrong; the message says what.
        """
        return run_search(self.request, self.listener)

    def train(
        self,
        *,
        top: int = 5,
        widths: Sequence[int] | None = None,
        n_parameters: int | None = None,
        seeds: int = 4,
        unfrozen: bool = True,
        unfrozen_seeds: int | None = None,
    ) -> FinalOutcome | None:
        """Train the best networks of the search to the end, choose one by validation, and score it on the test split.

        Args:
            top: How many of the search's best networks are trained.
            widths: Rows of every W_l, each of which is tried; None: the study file's.
            n_parameters: What each network may learn at most, from which its width follows; in place of widths.
            seeds: Seeds that what validation chose is trained with.
            unfrozen: Whether what was chosen is trained together with the backbones too, from raw data.
            unfrozen_seeds: How many of the seeds, from 0, for that; None: all.

        Returns:
            What it came to; None in all but the first of processes that `torchrun` started, which train together.

        Raises:
            Interrupted: A signal asked for the end; what was stored stays.
            MfasError: Something a user can mend is wrong; the message says what.
        """
        return run_train(self._final(top, widths, n_parameters, seeds, unfrozen, unfrozen_seeds), self.listener)

    def baselines(
        self,
        *,
        methods: Sequence[str] | None = None,
        top: int = 5,
        widths: Sequence[int] | None = None,
        n_parameters: int | None = None,
        seeds: int = 4,
        unfrozen: bool = True,
        unfrozen_seeds: int | None = None,
    ) -> FinalOutcome | None:
        """Train what one would do without the search, with the data, recipes and seeds of `train`, which comes first.

        `methods` names what is compared with; None: everything. With `n_parameters`, `train` need not come first. The
        other arguments, the result and the errors are those of `train`.
        """
        request = self._final(top, widths, n_parameters, seeds, unfrozen, unfrozen_seeds)
        return run_baselines(replace(request, methods=None if methods is None else tuple(methods)), self.listener)

    def _final(
        self,
        top: int,
        widths: Sequence[int] | None,
        n_parameters: int | None,
        seeds: int,
        unfrozen: bool,
        unfrozen_seeds: int | None,
    ) -> FinalRequest:
        n_unfrozen = (seeds if unfrozen_seeds is None else unfrozen_seeds) if unfrozen else 0
        of_width = None if widths is None else tuple(widths)
        return FinalRequest(self.request, top, seeds, of_width, n_unfrozen, n_parameters)

    def result(self) -> FusionResult:
        """Return what is stored of the study, as far as it went; neither data nor the test split are read.

        Raises:
            StorageError: The database or the study cannot be found, or it has no complete trial.
        """
        request = self.request
        results = collect(request.storage_url, request.study_name, request.spec, self.arguments)
        return FusionResult(self, results, judge(results))


@dataclass(frozen=True)
class FusionResult:
    """What a study came to.

    Attributes:
        study: The study.
        results: All that is stored of it, as data.
        verdict: Whether the search was worth it.
    """

    study: FusionStudy
    results: StudyResults
    verdict: Verdict

    @property
    def networks(self) -> tuple[RankedNetwork, ...]:
        """The search's best networks, best first, with the scores of their brief training."""
        return self.results.searches[0].best

    @property
    def methods(self) -> tuple[MethodResult, ...]:
        """What was trained to the end: the search's choice and everything that it is compared with."""
        return self.results.methods

    def to_text(self, width: int = 100) -> str:
        """Return the report for a terminal of so many columns, without colour."""
        drawn = io.StringIO()
        text.render(document(self.results, self.verdict), width=width, file=drawn)
        return drawn.getvalue()

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return markdown.render(document(self.results, self.verdict))

    def to_html(self) -> str:
        """Return the report as one page with all pictures, which needs nothing but itself."""
        from mfas_optuna.report import html  # Takes plotly, which takes a second to import.

        pictures = html.picture(self.study.request.storage_url, self.results, self.verdict)
        return html.render(self.results, self.verdict, pictures)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return render_json(self.results, self.verdict)

    def to_csv(self) -> str:
        """Return scores as CSV: one row for each method, step and seed."""
        return render_csv(self.results)

    def export(
        self,
        folder: str | PathLike[str],
        *,
        method: str = BEST,
        step: Step | None = None,
        onnx: bool | None = None,
        force: bool = False,
    ) -> Exported:
        """Write the network that validation chose as files that need neither this program nor Optuna.

        Args:
            folder: Where to: a folder that does not exist, or is empty.
            method: A method's name, or best: whichever validation prefers.
            step: frozen or unfrozen; None: whichever validation prefers.
            onnx: Whether an ONNX file is written; None: where onnx is installed.
            force: Write over an exported model.

        Raises:
            ExportCheckError: A form gives something else than the trained network.
            ExportError: There is no such training, or the folder is not free.
            MfasError: The study, its data or weights are missing or damaged.
        """
        request = self.study.request
        return export_study(
            ExportRequest(
                spec=request.spec,
                study_name=request.study_name,
                home=request.home,
                storage_url=request.storage_url,
                data_root=request.data_root,
                rebuild_command=request.rebuild_command,
                folder=Path(folder).absolute(),
                method=method,
                step=step,
                onnx=onnx,
                force=force,
                weights=request.weights,
            ),
            say=self.study.listener.say,
            progress=self.study.listener.progress,
        )
