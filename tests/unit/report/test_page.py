"""The report as a page: what is on it, and that nothing of a study's can run or load on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from optuna.trial import TrialState, create_trial

from mfas_optuna import trials as records
from mfas_optuna.report import StudyResults, html, judge
from mfas_optuna.report.html.page import reproduction
from mfas_optuna.report.html.pictures import PLOTS, picture_study

from ..visualization.studies import HOSTILE
from .helpers import FOUND, Database, fill_with


class Page(HTMLParser):
    """What a browser would read of a page: elements with their attributes, scripts and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text = ""
        self._in: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif self._in != "style":
            self.text += data

    def meta(self, name: str) -> str:
        return next(attrs["content"] or "" for tag, attrs in self.elements if attrs.get("http-equiv") == name)


@pytest.fixture
def hostile(stored: Database) -> Database:
    """A study with everything, every name of which attacks."""
    fill_with(stored, HOSTILE)
    return stored


def rendered(results: StudyResults, stored: Database) -> Page:
    verdict = judge(results)
    return Page(html.render(results, verdict, html.picture(stored.url, results, verdict)))


def test_what_is_on_the_page(stored: Database) -> None:
    stored.describe("digits: of scikit-learn.\nsecond line of the card")
    stored.train("mfas", "MFAS", (0.9, 0.91), head=FOUND)
    stored.train("late", "late fusion", (0.8, 0.81), head={"kind": "late_outputs"})
    results = stored.collect()
    page = rendered(results, stored)
    said = [
        "Was the search worth it? ", judge(results).sentence, "second line of the card",
        "fusion 2: audio conv2 + image conv1 + fusion 1 -> tanh",
        "This kind of head is not drawn.", '"samples_per_step": 15', "0.9050 ± 0.0071",
        "mfas-optuna search --study digits && mfas-optuna train --study digits --seeds 2 --no-unfrozen && mfas-optuna "
        "baselines --study digits --seeds 2 --no-unfrozen && mfas-optuna report --study digits -o report.html",
    ]  # fmt: skip
    for text in said:
        assert text in page.text, text
    assert "STAND-IN" not in page.text
    assert [tag for tag, _ in page.elements].count("svg") == 1
    headings = [attrs["id"] for tag, attrs in page.elements if tag == "section" and "id" in attrs]
    assert headings == ["networks", "methods", "search", "lineage", "time", "data", "again"]
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in headings]


def test_figures_are_data(stored: Database) -> None:
    stored.describe("card")
    page = rendered(stored.collect(), stored)
    figures = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    named = [attrs["data-figure"] for tag, attrs in page.elements if "data-figure" in attrs]
    assert len(figures) == len(named) == len(set(named))
    assert {"data-search", "data-timings", "data-parameters"} <= set(named)
    assert all(figure["data"] and "title" not in figure["layout"] for figure in figures)
    missing = [attrs for tag, attrs in page.elements if attrs.get("class") == "missing"]
    assert len(figures) + len(missing) >= len(PLOTS)


def test_nothing_runs_or_loads(hostile: Database) -> None:
    page = rendered(hostile.collect(), hostile)
    assert HOSTILE.replace("\n", " ") in page.text
    policy = page.meta("Content-Security-Policy")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    running = [text for kind, text in page.scripts if kind is None]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running} == allowed
    assert len(running) == 2
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)
    assert {kind for kind, _ in page.scripts} == {None, "application/json"}
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "base", "form", "video", "audio"}
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert "src" not in attrs
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:,"))


def test_stand_in_is_marked(hostile: Database) -> None:
    page = rendered(hostile.collect(), hostile)
    marks = [attrs for _, attrs in page.elements if attrs.get("class") in ("mark", "print-mark")]
    assert len(marks) == 3  # On top, on every printed page, and what a browser without scripts is told.
    assert ("body", {"class": "stand-in"}) in page.elements
    assert page.text.count(HOSTILE) >= 3


def test_failures_are_counted(stored: Database) -> None:
    for number in range(15):
        for _ in range(2):
            shown = {records.FAILURE_REASON: "error", records.FAILURE_MESSAGE: f"message {number}"}
            stored.search.add_trial(create_trial(state=TrialState.FAIL, user_attrs=shown))
    results = stored.collect()
    failures = picture_study(stored.search, results, judge(results)).failures
    assert failures is not None
    assert failures.rows[0] == ("error", "message 0", "2")
    assert len(failures.rows) == 10
    assert failures.notes == ("6 further messages are left out.",)


def test_command_of_other_settings(stored: Database) -> None:
    assert reproduction(stored.collect()) == (
        "mfas-optuna search --study digits && mfas-optuna report --study digits -o report.html"
    )
    other = Database(stored.folder, name="other")
    records.write_study(
        other.search, scientific=other.spec.with_search(seed=7).scientific(), fingerprint=other.spec.fingerprint()
    )
    try:
        assert "search --study digits --sampler mfas --mode calibrated --seed 7 &&" in reproduction(other.collect())
    finally:
        other.storage.engine.dispose()
