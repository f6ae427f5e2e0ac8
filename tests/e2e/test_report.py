"""`mfas-optuna report` after a search, as a user runs it."""

from __future__ import annotations

import csv
import io
import json

from .conftest import Cli


def test_report_of_a_search(cli: Cli) -> None:
    early = cli.run("report", "--study", "tiny")
    assert early.returncode == 2
    assert "there is no study database" in early.stderr
    best = cli.json("search", "--study", "tiny", "--quiet")["best"]
    shown = cli.ok("report", "--study", "tiny")
    assert "Run `mfas-optuna train --study tiny`, then `mfas-optuna baselines --study tiny`." in shown
    assert f"{best[0]['score']:.4f}" in shown
    target = cli.folder / "report.json"
    assert cli.ok("report", "--study", "tiny", "--format", "json", "-o", "report.json") == ""
    values = json.loads(target.read_text(encoding="utf-8"))
    assert values["searches"][0]["best"] == best
    assert values["verdict"]["outcome"] == "not_trained"
    assert values["methods"] == []
    assert cli.ok("report", "--study", "tiny", "--format", "markdown").startswith("# Report of study tiny\n")
    assert list(csv.DictReader(io.StringIO(cli.ok("report", "--study", "tiny", "--format", "csv")))) == []
