"""The dashboard as a user starts it: a process on a real study, asked over the network."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from .conftest import Cli
from .dashboards import Dashboard, served
from .test_cli import refused

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def searched(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A finished search, which no test changes."""
    folder = tmp_path_factory.mktemp("searched") / "work"
    shutil.copytree(prepared_home, folder)
    cli = Cli(folder)
    cli.ok("search", "--study", "tiny", "--quiet")
    return cli


def test_it_says_where_it_is_and_reads_only(searched: Cli) -> None:
    with served(searched) as dashboard:
        port = dashboard.url.rpartition(":")[2]
        assert dashboard.url == f"http://127.0.0.1:{port}"
        assert "read-only" in dashboard.said
        assert f"ssh -N -L {port}:127.0.0.1:{port} " in dashboard.said
        study = dashboard.study()
        status, detail = dashboard.ask(f"/api/studies/{study}")
        assert status == 200
        assert len(detail["trials"]) == 16
        for method, path in (
            ("DELETE", f"/api/studies/{study}"),
            ("POST", f"/api/studies/{study}/rename"),
            ("PUT", f"/api/studies/{study}/note"),
            ("POST", "/api/studies"),
        ):
            status, answer = dashboard.ask(path, method, {"study_name": "x", "directions": ["minimize"]}, JSON)
            assert status == 403
            assert "--allow-writes" in answer["reason"]
        assert dashboard.study() == study
        # A tunnel's other end has another port.
        assert dashboard.ask("/api/studies", headers={"Host": "localhost:9999"})[0] == 200
        status, answer = dashboard.ask("/api/studies", headers={"Host": f"evil.example:{port}"})
        assert status == 421
        assert "evil.example" in answer["reason"]


def test_a_finished_search_has_everything_to_look_at(searched: Cli) -> None:
    with served(searched) as dashboard:
        study = dashboard.study()
        detail = dashboard.ask(f"/api/studies/{study}")[1]
        sortable = {item["key"]: item["sortable"] for item in detail["union_user_attrs"]}
        numbers = {
            "iteration", "depth", "slot", "temperature", "predicted_score", "n_parameters", "best_epoch", "training_s",
            "seed", "joint_size", "warm_layers",
        }  # fmt: skip
        assert numbers <= {key for key, is_number in sortable.items() if is_number}
        assert {"architecture", "weights"} <= set(sortable)
        assert all(len(trial["intermediate_values"]) == 2 for trial in detail["trials"])
        assert detail["has_intermediate_values"]
        assert detail["objective_names"] == ["validation accuracy"]
        assert "- Trials: 16 of 16 finished" in detail["note"]["body"]
        assert 2 <= detail["note"]["version"] <= 5  # After the first step, after some of the others, and at the end.
        assert {plot["id"] for plot in detail["plotly_graph_objects"]} == {"mfas-search", "mfas-best-network"}
        [best] = detail["best_trials"]
        [artifact] = best["artifacts"]
        assert artifact["mimetype"] == "image/svg+xml"
        path = f"/artifacts/{study}/{best['trial_id']}/{artifact['artifact_id']}"
        drawing = dashboard.text(path)
        assert drawing.startswith("<svg")
        file = searched.home / "artifacts" / artifact["artifact_id"]
        file.unlink()  # As on another machine.
        assert dashboard.text(path) == drawing


def test_two_workers_leave_the_same_as_one(cli: Cli) -> None:
    cli.ok("search", "--study", "tiny", "--quiet", "--workers", "2")
    trials = [trial for trial in cli.trials() if trial["state"] in ("COMPLETE", "PRUNED")]
    with served(cli) as dashboard:
        detail = dashboard.ask(f"/api/studies/{dashboard.study()}")[1]
        assert f"- Trials: {len(trials)} of 16 finished" in detail["note"]["body"]
        [best] = detail["best_trials"]
        assert f"trial {best['number']}, " in detail["note"]["body"]
        assert len(best["artifacts"]) == 1
        assert len(detail["plotly_graph_objects"]) == 2


def test_pages_of_other_sites_delete_nothing_and_its_own_may(cli: Cli) -> None:
    cli.ok("search", "--study", "tiny", "--quiet", "--trials", "4")
    with served(cli, "--allow-writes") as dashboard:
        study = dashboard.study()
        path = f"/api/studies/{study}"
        for foreign in (
            {**JSON, "Origin": "http://evil.example"},
            {**JSON, "Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "text/plain"},
            {**JSON, "Host": "evil.example"},
        ):
            assert dashboard.ask(path, "DELETE", {}, foreign)[0] in (403, 421)
        assert dashboard.study() == study
        own = {**JSON, "Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"}
        assert dashboard.ask(path, "DELETE", {}, own)[0] == 204
        assert dashboard.ask("/api/studies")[1]["study_summaries"] == []


def test_a_taken_port_is_refused_when_it_was_asked_for_and_passed_over_when_not(searched: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(searched, "dashboard", "--port", str(port))
        assert f"127.0.0.1:{port} is taken" in message
    with served(searched) as first, served(searched) as second:
        assert first.url != second.url
        assert second.study() == first.study()


def test_a_public_address_needs_a_flag_that_says_what_it_exposes(searched: Cli) -> None:
    message = refused(searched, "dashboard", "--host", "0.0.0.0")
    assert "found 0.0.0.0, which other machines reach" in message
    assert "--expose-without-password" in message
    assert "cannot be bound to 192.0.2.1" in refused(
        searched, "dashboard", "--host", "192.0.2.1", "--expose-without-password"
    )
    with served(searched, "--host", "0.0.0.0", "--expose-without-password") as exposed:
        port = exposed.url.rpartition(":")[2]
        here = Dashboard(f"http://127.0.0.1:{port}", exposed.said)
        assert here.ask("/api/studies")[0] == 200
        assert here.ask("/api/studies", headers={"Host": exposed.url.removeprefix("http://")})[0] == 200
        assert here.ask("/api/studies", headers={"Host": "evil.example"})[0] == 421


def test_without_a_database_it_says_so(cli: Cli) -> None:
    assert "there is no study database" in refused(cli, "dashboard")


def test_help_says_what_is_exposed(cli: Cli) -> None:
    text = cli.ok("dashboard", "--help", TERM="dumb", NO_COLOR="1")
    for words in ("--expose-without-password", "--allow-writes", "--host", "read-only", "asks for no password"):
        assert words in " ".join(text.split())
