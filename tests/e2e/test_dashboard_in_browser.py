"""The dashboard in a real browser: what it is given is seen, nothing leaves this machine, and no other page gets in."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest

from mfas_optuna.dashboard import Drawings, Showcase
from mfas_optuna.storage import Patience

from ..integration.browser import Browser, opened
from ..unit.report.helpers import Database, fill_with
from ..unit.visualization.studies import HOSTILE, searched
from .conftest import Cli
from .dashboards import Dashboard, served

N_STUDIES, N_TRIALS = 100, 100

DRAWN = """
const find = (name, what) => document.getElementById('user-defined-plot:' + name)?.querySelector(what);
return Boolean(find('mfas-search', '.main-svg path') && find('mfas-best-network', '.main-svg image'));
"""
IMAGES = """Array.from(document.querySelectorAll('img')).filter(image => image.src.includes('/artifacts/'))
  .map(image => ({path: new URL(image.src).pathname, width: image.naturalWidth, is_complete: image.complete}))"""
DELETE = "{method: 'DELETE', headers: {'Content-Type': 'application/json'}, body: '{}'}"
HAS_TEXT = "return document.body.innerText.includes({!r})"


@dataclass(frozen=True)
class Served:
    """A dashboard of one search by the command line, one study whose names attack, and many others.

    Attributes:
        dashboard: Read-only.
        cli: The command line of its home.
        best: Number of the search's best trial.
        title: Of the search.
    """

    dashboard: Dashboard
    cli: Cli
    best: int
    title: str


@pytest.fixture(scope="module")
def shown(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("shown") / "work"
    shutil.copytree(prepared_home, folder)
    cli = Cli(folder)
    best = cli.json("search", "--study", "tiny")["best"][0]["trial"]
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stored = Database(cli.home, name="hostile")
    fill_with(stored, HOSTILE)
    Showcase(stored.spec, Drawings(cli.home / "artifacts")).show(stored.search, Patience())
    trials = searched(n_trials=20).trials
    for number in range(N_STUDIES):
        study = optuna.create_study(study_name=f"study-{number}", storage=stored.storage, direction="maximize")
    with stored.storage.batch(study._study_id):
        study.add_trials([trials[turn % len(trials)] for turn in range(N_TRIALS)])
    stored.storage.engine.dispose()
    optuna.logging.set_verbosity(before)
    with served(cli) as dashboard:
        yield Served(dashboard, cli, best, "A study for tests")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("profile"), "--host-resolver-rules=MAP evil.example 127.0.0.1") as found:
        yield found


def check_nothing_left(browser: Browser, dashboard: Dashboard) -> None:
    """Check that everything came from the dashboard, and that the console is silent."""
    places = {urlsplit(url).netloc for url in browser.requests() if not url.startswith(("data:", "blob:"))}
    assert places == {urlsplit(dashboard.url).netloc}
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_plots_note_and_drawing_are_seen(browser: Browser, shown: Served, dark: bool) -> None:
    dashboard = shown.dashboard
    study = f"{dashboard.url}/dashboard/studies/{dashboard.study()}"
    browser.look(width=1400, dark=dark)
    browser.visit(study, DRAWN)
    assert browser.run("return document.body.innerText.includes('Error by step')")
    picture = browser.run(
        "const box = document.querySelector('[id$=mfas-best-network] image').getBoundingClientRect();"
        "return [box.width, box.height]"
    )
    assert picture[0] > 200
    assert picture[1] > 100
    check_nothing_left(browser, dashboard)
    browser.visit(f"{study}/note", HAS_TEXT.format("Best so far, by validation accuracy"))
    assert browser.run(HAS_TEXT.format(shown.title))
    assert browser.run("return document.querySelectorAll('strong').length") == 5
    check_nothing_left(browser, dashboard)
    trial = f"{study}/trials?numbers={shown.best}"
    browser.visit(trial, f"return {IMAGES}.some(image => image.is_complete && image.width > 0)")
    [image] = browser.run(f"return {IMAGES}")
    assert image["width"] > 100
    for name in ("architecture", "iteration", "slot", "depth", "n_parameters", "weights"):
        assert browser.run(HAS_TEXT.format(f"{name} "))
    check_nothing_left(browser, dashboard)
    browser.visit(dashboard.url + image["path"], "return document.querySelector('svg text') !== null")
    check_nothing_left(browser, dashboard)


def test_names_are_inert(browser: Browser, shown: Served) -> None:
    dashboard = shown.dashboard
    study = f"{dashboard.url}/dashboard/studies/{dashboard.study('hostile')}"
    browser.look(width=1400)
    for page, is_ready in ((study, DRAWN), (f"{study}/note", HAS_TEXT.format("STAND-IN DATA"))):
        browser.visit(page, is_ready)
        assert browser.run("return window.hit === undefined")
        assert browser.run("return document.querySelectorAll('img[onerror], a[href^=javascript]').length") == 0
        check_nothing_left(browser, dashboard)
    assert browser.run(HAS_TEXT.format(HOSTILE[:20]))  # As it is.


def test_many_studies_and_many_trials_open(browser: Browser, shown: Served) -> None:
    dashboard = shown.dashboard
    browser.look(width=1400)
    browser.visit(dashboard.url, HAS_TEXT.format(f"study-{N_STUDIES - 1}"))
    check_nothing_left(browser, dashboard)
    study = dashboard.study(f"study-{N_STUDIES - 1}")
    browser.visit(f"{dashboard.url}/dashboard/studies/{study}/trials", HAS_TEXT.format(f"{N_TRIALS} Trials"))
    check_nothing_left(browser, dashboard)


def fetched(browser: Browser, url: str, options: str = "{}") -> list[object]:
    """Return status and text of what a page is answered; 0 and the error's name where the browser keeps it back."""
    browser.driver.set_script_timeout(60)
    answer = browser.driver.execute_async_script(
        f"const done = arguments[arguments.length - 1]; fetch({url!r}, {options})"
        ".then(answer => answer.text().then(text => done([answer.status, text])), error => done([0, error.name]))"
    )
    return list(answer)


def test_a_page_of_another_site_neither_reads_nor_writes(browser: Browser, shown: Served, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>other</title>", encoding="utf-8")
    other = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *request: QuietFiles(*request, directory=str(tmp_path))
    )
    threading.Thread(target=other.serve_forever).start()
    try:
        with served(shown.cli, "--allow-writes") as dashboard:
            study = dashboard.study("study-0")
            path = f"/api/studies/{study}"
            browser.visit(f"http://127.0.0.1:{other.server_port}/", "return document.title === 'other'")
            for options in (DELETE, "{method: 'POST', mode: 'no-cors', body: '{}'}", "{}", "{mode: 'no-cors'}"):
                for asked in (path, f"{path}/rename", "/api/studies"):
                    status, text = fetched(browser, dashboard.url + asked, options)
                    assert status == 0
                    assert text in ("", "TypeError")
            assert dashboard.study("study-0") == study
            # A page that has its own name lead here.
            port = urlsplit(dashboard.url).port
            browser.visit(f"http://evil.example:{port}/api/studies", "return document.body !== null")
            assert "Expected a name of this machine" in browser.run("return document.body.innerText")
            # Its own page may.
            browser.visit(dashboard.url, HAS_TEXT.format("study-0"))
            assert fetched(browser, path, DELETE)[0] == 204
    finally:
        other.shutdown()
        other.server_close()


def test_not_even_its_own_page_writes_in_one_that_only_reads(browser: Browser, shown: Served) -> None:
    browser.visit(shown.dashboard.url, HAS_TEXT.format("study-1"))
    study = shown.dashboard.study("study-1")
    status, text = fetched(browser, f"/api/studies/{study}", DELETE)
    assert status == 403
    assert "--allow-writes" in str(text)
    assert shown.dashboard.study("study-1") == study


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""
