"""The formats: what people read, and what programs read."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from mfas_optuna import finals
from mfas_optuna.report import StudyResults, document, judge, markdown, render_csv, render_json, text
from mfas_optuna.report.machine import CSV_COLUMNS
from mfas_optuna.report.paper import QUOTED
from mfas_optuna.report.tables import NOTHING, quoted_table

from .helpers import NETWORK, Database

DEEP = "[(5,3,2),(12,3,1),(4,11,2),(10,10,1)]"
HOSTILE = "a|b *bold* <script>x</script> [link](http://x) `code`\x1b[31m\nnext"
FORMULA = '=HYPERLINK("http://x","y"), z'


@pytest.fixture
def results(stored: Database) -> StudyResults:
    """A study with everything: two searches, methods of both steps, hostile names."""
    stored.describe("digits: of scikit-learn.", "made up")
    stored.add_search("digits-random", stored.spec.with_search(sampler="random"))
    head = {**NETWORK, "notation": DEEP}
    stored.train("mfas", "MFAS", (0.9012, 0.9123, 0.9234), head=head, n_parameters=12_345_678)
    stored.train("mfas", "MFAS", (0.91,), step="unfrozen", head=head, n_parameters=12_345_678)
    stored.train("late", HOSTILE, (0.8012,), n_parameters=0, head={"kind": "late", "label": "mean"})
    stored.train("gmu", FORMULA, (None, None))
    finals.write_titles(stored.final, {"centralnet": "CentralNet"})
    return stored.collect()


def as_text(results: StudyResults, width: int) -> str:
    file = io.StringIO()
    text.render(document(results, judge(results)), width=width, file=file)
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 80, 160])
def test_text_cuts_no_number(results: StudyResults, width: int) -> None:
    shown = as_text(results, width)
    tables = [line for line in shown.splitlines() if "  " in line]
    assert max(map(len, tables)) <= max(width, 80)
    for number in (
        "0.9123 ± 0.0111", "12,345,678", "0.6000 (0.1000)", "+11.11 [+8.35, +13.87]", "0:01:30", "0.8012", "[(5,3,2)",
        "(12,3,1)", "(4,11,2)", "(10,10,1)]"
    ):  # fmt: skip
        assert number in shown, number
    assert "…" not in shown
    assert "\x1b" not in shown
    assert "STAND-IN: made up." in shown
    assert (
        "Verdict: The search was worth it: MFAS is better by 11.11 [8.35, 13.87] points of test accuracy than a|b"
        in shown
    )
    assert "Above MFAS on test" not in shown
    assert "Readings of the test split: 5" in shown


def test_what_is_not_there_is_a_dash(results: StudyResults) -> None:
    methods = next(table for table in document(results, judge(results)).tables if table.headings[0] == "method")
    rows = {row[0]: row[1:] for row in methods.rows}
    assert rows["CentralNet"] == (NOTHING, NOTHING, NOTHING, NOTHING)
    assert rows[FORMULA] == (NOTHING, "0.8000", "2", NOTHING)
    assert rows["MFAS"] == ("0.9123 ± 0.0111", "0.8000", "3", NOTHING)
    assert rows["MFAS, unfrozen"] == ("0.9100", "0.8000", "1", NOTHING)


def test_every_row_of_markdown_has_as_many_cells_as_its_heading(results: StudyResults) -> None:
    shown = markdown.render(document(results, judge(results)))
    assert "**STAND-IN: made up.**" in shown
    for block in re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert r"a\|b \*bold\* \<script\>x\</script\> [link\](http://x) \`code\` [31m next" in shown
    assert DEEP in shown
    assert all(character.isprintable() for line in shown.split("\n") for character in line)


def test_json_holds_everything(results: StudyResults) -> None:
    values: dict[str, Any] = json.loads(render_json(results, judge(results)))
    assert list(values) == [
        "version", "study", "dataset", "metric", "data_card", "stand_in", "n_planned", "settings", "backbones",
        "hardware", "verdict", "searches", "methods", "final_training_s", "test_reads", "quoted", "warnings",
    ]  # fmt: skip
    assert (values["version"], values["stand_in"], values["quoted"]) == (1, "made up", None)
    assert [search["sampler"] for search in values["searches"]] == ["mfas", "random"]
    assert values["searches"][0]["best"][0]["architecture"] == "[(2,1,1)]"
    ours, late, gmu, centralnet = values["methods"]
    assert (ours["is_ours"], ours["is_searched"], ours["counted_step"]) == (True, True, "frozen")
    assert ours["steps"][0]["by_seed"][2] == {"seed": 2, "validation": 0.8, "test": 0.9234, "training_s": 60.0}
    assert ours["steps"][0]["ours_minus_it"] is None
    assert late["title"] == HOSTILE
    assert late["steps"][0]["is_deterministic"] is True
    assert late["steps"][0]["ours_minus_it"]["seeds"] == [0, 1, 2]
    assert late["steps"][0]["ours_minus_it"]["mean"] == pytest.approx(0.9123 - 0.8012)
    assert gmu["steps"][0]["test"] is None
    assert (centralnet["steps"], centralnet["counted_step"]) == ([], None)
    assert len(values["test_reads"]) == 5
    assert values["verdict"]["outcome"] == "worth_it"
    searching = values["verdict"]["searching"]
    assert (searching["method"], searching["other"], searching["outcome"]) == ("mfas", "late", "worth_it")
    assert values["verdict"]["sampler"] is None


def test_csv_has_a_row_for_each_training_and_no_formula(results: StudyResults) -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(results))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [(row["method"], row["step"], row["seed"]) for row in rows] == [
        ("mfas", "frozen", "0"),
        ("mfas", "frozen", "1"),
        ("mfas", "frozen", "2"),
        ("mfas", "unfrozen", "0"),
        ("late", "frozen", "0"),
        ("gmu", "frozen", "0"),
        ("gmu", "frozen", "1"),
    ]
    assert {row["stand_in"] for row in rows} == {"made up"}
    assert (rows[0]["test"], rows[5]["test"]) == ("0.9012", "")
    assert rows[4]["title"] == HOSTILE
    assert rows[5]["title"] == "'" + FORMULA


def test_a_search_alone_is_a_report_in_every_format(stored: Database) -> None:
    results = stored.collect()
    assert "Methods" not in as_text(results, 80)
    assert "its networks are not trained to the end" in as_text(results, 80)
    assert "its networks are not trained to the end" in markdown.render(document(results, judge(results)))
    assert json.loads(render_json(results, judge(results)))["methods"] == []
    assert render_csv(results) == ",".join(CSV_COLUMNS) + "\n"


def test_the_paper_is_quoted_as_printed_and_marked(results: StudyResults) -> None:
    assert quoted_table(results) is None
    table = quoted_table(replace(results, dataset="avmnist"))
    assert table is not None
    assert [row[2:] for row in table.rows] == [
        (printed, "quoted: paper") for printed in ("74.52", "66.06", "87.78", "87.86", "88.38")
    ]
    assert table.notes[0] == "These are of real data: nothing above compares with them."
    for quoted in QUOTED.values():
        for _, _, scores in quoted.rows:
            assert len(scores) == len(quoted.scores)
            assert all(math.isfinite(float(printed.split(" ")[0])) for printed in scores)
