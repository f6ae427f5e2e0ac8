"""The tables of a report as data: headings and cells, which every format for people draws in its own way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mfas_optuna.report.data import StepResult, StudyResults
from mfas_optuna.report.paper import DIFFERENCES, MARK, QUOTED
from mfas_optuna.report.statistics import Spread, spread
from mfas_optuna.report.verdict import Verdict, compared, interval, points
from mfas_optuna.search.temperature import TEMPERATURES
from mfas_optuna.target import METRIC_TITLES

NOTHING = "-"
"""Cell of what is not there."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        headings: Of the columns.
        numbers: Which columns are numbers: aligned to the right and never broken.
        rows: Cells, as many as there are headings.
        notes: Lines beneath it.
    """

    title: str
    headings: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A report for people.

    Attributes:
        title: Heading.
        stand_in: What the generated data stand in for; empty for real data.
        header: Name and text of what the report is about.
        verdict: The sentence.
        notes: What belongs beside it.
        tables: The tables.
    """

    title: str
    stand_in: str
    header: tuple[tuple[str, str], ...]
    verdict: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]


def document(results: StudyResults, verdict: Verdict) -> Document:
    """Return the report for people; every text of it is free of control characters."""
    made: list[Table | None] = [searches_table(results)]
    if results.methods:
        made += [methods_table(results), choices_table(results)]
    made += [settings_table(results), times_table(results), ledger_table(results), quoted_table(results)]
    return Document(
        title=printable(f"Report of study {results.study_name}"),
        stand_in=printable(results.stand_in),
        header=tuple((name, printable(text)) for name, text in _header(results)),
        verdict=printable(verdict.sentence),
        notes=tuple(printable(note) for note in (*verdict.notes, *(f"Warning: {text}." for text in results.warnings))),
        tables=tuple(clean(table) for table in made if table is not None),
    )


def _header(results: StudyResults) -> Iterable[tuple[str, str]]:
    search = results.searches[0]
    states = ", ".join(f"{count} {state.lower()}" for state, count in search.n_by_state.items())
    planned = "" if results.n_planned is None else f" ({search.n_finished} finished of {results.n_planned} planned)"
    yield "data", results.card or results.dataset
    yield "metric", f"{METRIC_TITLES[results.metric]}; one point is 0.01 of it"
    yield "trials", f"{states}{planned}"
    for modality, record in results.backbones.items():
        yield f"{modality} alone", _alone(record)
    yield "trained with", "; ".join(f"torch {item}" for item in results.hardware) or "not recorded"


def _alone(record: Mapping[str, object]) -> str:
    task, scores = record.get("task"), (("validation", "validation_score"), ("test", "test_score"))
    known = (f"{record[key]:.4f} on {split}" for split, key in scores if record.get(key) is not None)
    return ("its backbone " if task is None else f"its backbone, on another task ({task}) ") + (
        ", ".join(known) or "has no score"
    )


def searches_table(results: StudyResults) -> Table:
    """Return the best networks by search (the paper's Tables 1 and 5)."""
    rows = []
    for search in results.searches:
        for rank, network in enumerate(search.best, start=1):
            rows.append(
                (search.title, str(rank), network.architecture, score(network.score), count(network.n_parameters))
            )
        rows.append((search.title, "", "mean (std)", mean_and_std(search.spread, brackets=True), ""))
    trials = ", ".join(f"{search.title} {search.n_counted}" for search in results.searches)
    return Table(
        "Best networks by search",
        ("search", "rank", "network", "validation", "fusion parameters"),
        (False, True, False, True, True),
        tuple(rows),
        (f"Validation {METRIC_TITLES[results.metric]} in the search; trials that count: {trials}.",),
    )


def methods_table(results: StudyResults) -> Table:
    """Return what all methods came to (the paper's Tables 2 to 4), with paired differences."""
    ours = results.ours
    title = NOTHING if ours is None else ours.title
    rows = []
    for method in results.methods:
        for step in method.steps.values():
            own = None if ours is None else ours.steps.get(step.step)
            difference = None if own is None or method is ours else compared(own, step)
            rows.append(
                (
                    name_of(method.title, step),
                    mean_and_std(spread(step.test.values())),
                    mean_and_std(spread(step.validation.values()), mean_only=True),
                    seeds_of(step),
                    NOTHING
                    if difference is None
                    else f"{points(difference.mean, signed=True)} {interval(difference, signed=True)}".strip(),
                )
            )
        if not method.steps:
            rows.append((method.title, NOTHING, NOTHING, NOTHING, NOTHING))
    return Table(
        "Methods, trained to the end",
        ("method", "test", "validation", "seeds", f"{title} minus it, points"),
        (False, True, True, True, True),
        tuple(rows),
        (
            f"{METRIC_TITLES[results.metric]}: mean ± standard deviation over seeds. Differences are of test scores in "
            "the same step, paired by seed, with the 95 % interval of Student's t.",
        ),
    )


def choices_table(results: StudyResults) -> Table:
    """Return what validation chose of each method, with its size (the paper's Table 5)."""
    rows = [
        (
            name_of(method.title, step),
            step.label,
            recipe_of(step),
            count(step.n_fusion_parameters),
            count(step.n_parameters),
        )
        for method in results.methods
        for step in method.steps.values()
    ]
    return Table(
        "What validation chose",
        ("method", "network", "recipe", "fusion parameters", "all parameters"),
        (False, False, False, True, True),
        tuple(rows),
        ("Parameters are those that are learned besides the backbones.",),
    )


def settings_table(results: StudyResults) -> Table:
    """Return the settings of the search (the paper's Table 6)."""
    settings = results.settings
    search, depth = settings["search"], settings["space"]["max_depth"]
    n_iterations = search["n_iterations"]
    rows = [
        ("iterations", "E_search", str(n_iterations)),
        ("depth", "L", str(depth)),
        ("steps", "E_search * L", str(n_iterations * depth) if isinstance(n_iterations, int) else str(n_iterations)),
        ("networks a step", "K", str(search["samples_per_step"])),
        ("epochs of a trial", "E_train", str(settings["training"]["epochs"])),
        ("width", "rows of W_l", str(settings["fusion"]["width"])),
        ("sampler", "", f"{search['sampler']}, seed {search['seed']}"),
    ]
    if search["sampler"] == "mfas":
        highest, lowest = TEMPERATURES[search["mode"]]
        highest = highest if search["temperature_max"] is None else search["temperature_max"]
        lowest = lowest if search["temperature_min"] is None else search["temperature_min"]
        rows += [
            ("mode", "", search["mode"]),
            ("temperature", "T_max, T_min", f"{highest:g} to {lowest:g}"),
            ("its decay, in steps", "sigma", f"{search['temperature_decay']:g}"),
        ]
    return Table("Search settings", ("setting", "paper", "value"), (False, False, True), tuple(rows))


def times_table(results: StudyResults) -> Table:
    """Return how long what took, and on what (the paper's Table 6)."""
    rows = []
    for search in results.searches:
        hardware = hardware_of(search.hardware)
        for stage, seconds in search.timings_s.items():
            rows.append((search.study_name, stage, clock(seconds), hardware if stage == "search" else NOTHING))
        if search.n_steps and "search" in search.timings_s:
            mean_s = search.timings_s["search"] / search.n_steps
            rows.append((search.study_name, f"search, a step of {search.n_steps}", clock(mean_s), hardware))
    for step, seconds in results.training_s.items():
        stage = f"final training of all methods, {step}"
        rows.append((results.study_name, stage, clock(seconds), hardware_of(results.final_hardware)))
    return Table(
        "Time by stage",
        ("study", "stage", "h:mm:ss", "torch, device"),
        (False, False, True, False),
        tuple(rows),
        ("What a stage found made already took no time.",),
    )


def ledger_table(results: StudyResults) -> Table | None:
    """Return how often the test split was read, by purpose; None where it never was."""
    if not results.ledger:
        return None
    counted = Counter((read.study_name, read.entry.purpose) for read in results.ledger)
    last = {(read.study_name, read.entry.purpose): read.entry.time for read in results.ledger}
    rows = [
        (study_name, purpose, str(times), last[study_name, purpose][:16].replace("T", " "))
        for (study_name, purpose), times in counted.items()
    ]
    return Table(
        f"Readings of the test split: {len(results.ledger)}",
        ("ledger of", "purpose", "times", "last, UTC"),
        (False, False, True, True),
        tuple(rows),
        ("Methods and networks are chosen by validation scores.",),
    )


def quoted_table(results: StudyResults) -> Table | None:
    """Return the paper's own figures for the data set; None where it has none."""
    quoted = QUOTED.get(results.dataset)
    if quoted is None:
        return None
    rows = tuple((method, modalities, *scores, MARK) for method, modalities, scores in quoted.rows)
    stand_in = ("These are of real data: nothing above compares with them.",) if results.stand_in else ()
    return Table(
        f"The paper's own figures ({MARK}, {quoted.source})",
        ("method", "modalities", *quoted.scores, "source"),
        (False, False, *(True for _ in quoted.scores), False),
        rows,
        (*stand_in, *quoted.notes, DIFFERENCES),
    )


# Cells.


def score(value: float) -> str:
    """Return a score."""
    return f"{value:.4f}"


def mean_and_std(of: Spread | None, *, brackets: bool = False, mean_only: bool = False) -> str:
    """Return a mean, and its deviation after ± or, as the paper's Table 1 has it, in brackets."""
    if of is None:
        return NOTHING
    if of.std is None or mean_only:
        return score(of.mean)
    return f"{score(of.mean)} ({score(of.std)})" if brackets else f"{score(of.mean)} ± {score(of.std)}"


def count(number: int | None) -> str:
    """Return a number of parameters."""
    return NOTHING if number is None else f"{number:,}"


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def hardware_of(found: Sequence[str]) -> str:
    """Return torch and device, or that they are not recorded."""
    return "; ".join(found) or NOTHING


def name_of(title: str, step: StepResult) -> str:
    """Return a method's title with its step, where that is not the first."""
    return title if step.step == "frozen" else f"{title}, {step.step}"


def seeds_of(step: StepResult) -> str:
    """Return how many seeds there are; of those scored on test first where these are fewer."""
    n_test, n_validation = len(step.test), len(step.validation)
    return str(n_validation) if n_test in (0, n_validation) else f"{n_test} of {n_validation}"


def recipe_of(step: StepResult) -> str:
    """Return how the choice was trained; what is 0 is left out."""
    if step.is_deterministic:
        return "nothing to learn"
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in step.recipe.items() if value)


def printable(text: str) -> str:
    """Return a text on one line and without control characters, which names in a database could bring."""
    return "".join(character if character.isprintable() else " " for character in text)


def clean(table: Table) -> Table:
    """Return a table whose every text is on one line and free of control characters."""
    return Table(
        printable(table.title),
        tuple(printable(heading) for heading in table.headings),
        table.numbers,
        tuple(tuple(printable(cell) for cell in row) for row in table.rows),
        tuple(printable(note) for note in table.notes),
    )
