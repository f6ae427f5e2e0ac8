"""The report's page in a real browser: everything is drawn, nothing is asked for, and no name of a study's runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest

from mfas_optuna.report import html, judge

from ..unit.report.helpers import Database, fill_with
from ..unit.visualization.studies import HOSTILE, searched
from .browser import Browser, opened

IN_VIEW = """
const wide = document.documentElement.clientWidth;
return Array.from(document.querySelectorAll(%r)).map(node => {
  const box = node.getBoundingClientRect();
  return {width: box.width, height: box.height, inside: box.left >= -1 && box.right <= wide + 1};
});
"""
COLOURS = """
const fill = (query, property) => getComputedStyle(document.querySelector(query))[property];
return {
  body: fill("body", "color"), tick: fill(".xtick text", "fill"), legend: fill(".legendtext", "fill"),
  note: fill(".note", "color"), drawing: fill(".mfas-network", "color"), paper: fill("body", "backgroundColor"),
};
"""


@dataclass(frozen=True)
class Pages:
    """Reports as files.

    Attributes:
        finished: Of a finished search with final trainings.
        hostile: Of one whose every name attacks.
    """

    finished: Path
    hostile: Path


def write(stored: Database, path: Path) -> Path:
    results = stored.collect()
    verdict = judge(results)
    page = html.render(results, verdict, html.picture(stored.url, results, verdict))
    path.write_text(page, encoding="utf-8", newline="\n")
    stored.storage.engine.dispose()
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = tmp_path_factory.mktemp("finished")
    stored = Database(folder)
    stored.search.add_trials(searched().trials)
    stored.describe("digits: of scikit-learn.")
    stored.train("mfas", "MFAS", (0.9, 0.91))
    for number in range(8):
        stored.train(f"m{number}", f"a method with a rather long name, the {number}th", (0.8, 0.8 + number / 100))
    finished = write(stored, folder / "finished.html")
    folder = tmp_path_factory.mktemp("hostile")
    stored = Database(folder, name=HOSTILE)
    fill_with(stored, HOSTILE)
    hostile = write(stored, folder / "hostile.html")
    optuna.logging.set_verbosity(before)
    return Pages(finished, hostile)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("name", ["finished", "hostile"])
def test_everything_is_drawn_and_nothing_is_asked_for(browser: Browser, pages: Pages, name: str, width: int) -> None:
    browser.look(width=width)
    path = getattr(pages, name)
    browser.open(path)
    assert browser.complaints() == []
    assert {url for url in browser.requests() if not url.startswith("data:")} == {path.as_uri()}
    figures = browser.run("return document.querySelectorAll('[data-figure]').length")
    plots = browser.run(IN_VIEW % "[data-figure] .main-svg:first-of-type")
    assert figures == len(plots) >= 4
    assert all(plot["inside"] and plot["width"] > width / 2 and plot["height"] > 100 for plot in plots)
    assert browser.run(
        "return Array.from(document.querySelectorAll('[data-figure]')).every(n => n.querySelector('path'))"
    )
    drawings = browser.run(IN_VIEW % ".mfas-network")
    assert len(drawings) >= (5 if name == "finished" else 2)
    assert all(drawing["inside"] and drawing["width"] > 100 for drawing in drawings)
    assert browser.run("return document.documentElement.scrollWidth") == width


def test_drawings_stand_in_their_places_and_their_text_can_be_selected(browser: Browser, pages: Pages) -> None:
    browser.look(width=1280)
    browser.open(pages.finished)
    order = browser.run(
        "return Array.from(document.querySelectorAll('.verdict, .mfas-network, #methods')).map(n => n.tagName)"
    )
    assert order[0] == "SECTION"
    assert order[-1] == "SECTION"
    assert set(order[1:-1]) == {"svg"}
    selected = browser.run(
        "const text = document.querySelector('.mfas-network text'); getSelection().selectAllChildren(text);"
        "return getSelection().toString();"
    )
    assert selected == "audio"


def test_names_are_inert(browser: Browser, pages: Pages) -> None:
    browser.look(width=1280)
    browser.open(pages.hostile)
    assert browser.run("return window.hit === undefined")
    assert browser.run("return document.title") == f"Report of study {HOSTILE}"
    assert browser.run("return document.querySelector('h1').textContent") == f"Report of study {HOSTILE}"
    assert browser.run("return document.querySelectorAll('img, iframe, object, embed, form').length") == 0
    # Two scripts run; those beside the plots are data.
    assert browser.run("return document.querySelectorAll('script:not([type])').length") == 2
    links = browser.run(
        "return Array.from(document.querySelectorAll('a, svg a'))"
        ".map(n => n.getAttribute('href') || n.getAttribute('xlink:href'))"
    )
    assert all(link is None or link.startswith("#") for link in links)
    # Names stand in the plots as they are.
    assert browser.run("return document.querySelector('#plot-timings').textContent").count("<img") >= 1


def test_the_policy_holds_what_escaping_would_let_through(browser: Browser, pages: Pages) -> None:
    browser.look(width=1280)
    browser.open(pages.finished)
    browser.driver.set_script_timeout(20)
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\"><b onclick=\"hit=1\">')"
    )
    browser.run("document.querySelector('b[onclick]').click()")
    browser.run("const s = document.createElement('script'); s.textContent = 'window.hit = 2'; document.body.append(s)")
    refused = browser.driver.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('got'), error => done(error.name))"
    )
    assert refused == "TypeError"
    assert browser.run("return window.hit === undefined")
    assert len([line for line in browser.complaints() if "Content Security Policy" in line]) >= 4


@pytest.mark.parametrize("dark", [False, True])
def test_letters_can_be_read_in_light_and_dark(browser: Browser, pages: Pages, dark: bool) -> None:
    browser.look(width=1280, dark=dark)
    browser.open(pages.finished)
    colours = {name: luminance(colour) for name, colour in browser.run(COLOURS).items()}
    paper = colours.pop("paper")
    assert (paper < 0.1) == dark
    for name, colour in colours.items():
        low, high = sorted((colour, paper))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def luminance(colour: str) -> float:
    """Return the relative luminance of what the browser calls `rgb(r, g, b)`."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(number) / 255 for number in re.findall(r"\d+", colour)[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_stand_in_is_marked_on_top_and_in_print(browser: Browser, pages: Pages) -> None:
    browser.look(width=1280)
    browser.open(pages.hostile)
    browser.run("window.scrollTo(0, document.body.scrollHeight)")
    assert browser.run("return document.querySelector('.mark').getBoundingClientRect().top") == 0
    assert browser.run("return getComputedStyle(document.querySelector('.print-mark')).display") == "none"
    browser.look(width=700, media="print")
    band = "const band = document.querySelector('.print-mark'); const box = band.getBoundingClientRect();"
    shown = browser.run(
        f"{band} return [getComputedStyle(band).position, box.height, box.left, "
        "document.querySelector('main').getBoundingClientRect().right]"
    )
    assert shown[0] == "fixed"
    assert shown[1] == 900
    assert shown[3] <= shown[2]  # It covers no text.


def test_a_print_has_every_plot_within_the_paper(browser: Browser, pages: Pages) -> None:
    browser.look(width=1280, dark=True)
    browser.open(pages.finished)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    printed = browser.run(IN_VIEW % "[data-figure] .main-svg:first-of-type")
    assert {plot["width"] for plot in printed} == {640}
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    again = browser.run(IN_VIEW % "[data-figure] .main-svg:first-of-type")
    assert all(plot["width"] > 640 for plot in again)
    browser.look(width=700, dark=True, media="print")
    assert luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) == 1.0
