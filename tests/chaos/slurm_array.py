"""A job array on a real Slurm: a preempted job, a node that dies, and the time limit of the others."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from tests.e2e.conftest import TINY, Cli
from tests.postgres import PostgresServer
from tests.slurm import SlurmCluster, wait_until

N_WORKERS = 3
_RESULT = re.compile(r"^\s*\d+/\d+\s+(\d\.\d{4})\s+(\[\S+\])", re.MULTILINE)


def slurm_array(server: PostgresServer, folder: Path, n_trials: int) -> Counter[str]:
    """Run a study as a job array; preempt one job, kill the node of another, and let the rest reach their time limit.

    Args:
        server: Has the database.
        folder: An empty one, for the study, its home and its weights.
        n_trials: Of a second or so each: enough for what is done meanwhile, which takes three minutes.

    Returns:
        What was done and found; an assertion fails when anything was lost.
    """
    cluster = SlurmCluster(N_WORKERS)
    try:
        return _search(cluster, server, folder, n_trials)
    except AssertionError as error:
        logs = "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in folder.rglob("mfas-*.log"))
        raise AssertionError(f"{error}\n{logs}\n{cluster.log()}") from error
    finally:
        cluster.remove()


def _search(cluster: SlurmCluster, server: PostgresServer, folder: Path, n_trials: int) -> Counter[str]:
    (folder / "studies").mkdir()
    study = TINY.replace("[training]\nepochs = 2", "[training]\nepochs = 150")
    assert study != TINY
    (folder / "studies" / "tiny.toml").write_text(study, encoding="utf-8")
    cli = Cli(folder)
    name = server.new_database()
    settings = {"MFAS_STORAGE": server.url(name), "MFAS_WEIGHTS": str(folder / "weights"), "MFAS_JOINT": "1"}
    searched = ["--study", "tiny", "--sampler", "random", "--trials", str(n_trials)]
    cli.ok("prepare", "--study", "tiny", **settings)
    array = [*searched, "--workers", str(N_WORKERS), "--partition", "low", "--time", "3", "--submit"]
    print(cli.ok("slurm", *array, **settings, SLURM_CONF=cluster.environment["SLURM_CONF"]).strip(), flush=True)
    found: Counter[str] = Counter()

    def is_running(place: str, but_not_on: str = "") -> bool:
        job = cluster.jobs().get(place, "")
        return job.startswith("RUNNING") and not (but_not_on and job.endswith(but_not_on))

    def log(place: str) -> str:
        return "".join(path.read_text() for path in folder.glob(f"mfas-*_{place}.log"))

    def works(place: str, n_before: int = 0) -> bool:
        return len(_RESULT.findall(log(place))) > n_before

    def note(what: str) -> None:
        print(f"  {what}", flush=True)
        found["faults"] += 1

    wait_until(lambda: all(works(str(place + 1)) for place in range(N_WORKERS)), "a result of each worker", 240)
    # Preemption.
    node, n_before = cluster.jobs()["1"].split()[1], len(_RESULT.findall(log("1")))
    cluster.call("sbatch", "-p", "high", "-w", node, "-o", "/dev/null", "--wrap", "sleep 3")
    wait_until(lambda: "DUE TO PREEMPTION" in log("1"), "the preemption", 60)
    note(f"preempted on {node}")
    wait_until(lambda: "goes on from here" in log("1"), "the clean stop of the preempted worker", 60)
    # The death of a node.
    node, n_of_killed = cluster.jobs()["2"].split()[1], len(_RESULT.findall(log("2")))
    cluster.kill_node(node)
    note(f"killed {node}")
    wait_until(lambda: not is_running("2"), "that Slurm notices the node's death", 120)
    cluster.start_node(node)
    wait_until(lambda: works("1", n_before) or not cluster.jobs(), "the preempted worker's return", 200)
    wait_until(lambda: works("2", n_of_killed) or not cluster.jobs(), "the return of the killed node's worker", 200)
    wait_until(lambda: not cluster.jobs(), "the end of the search", 1800)
    logs = {str(place + 1): log(str(place + 1)) for place in range(N_WORKERS)}
    found["stopped in good order"] = sum(text.count("goes on from here") for text in logs.values())
    n_time_limits = found["stopped in good order"] - logs["1"].count("DUE TO PREEMPTION")
    found["faults"] += n_time_limits
    print(f"  {n_time_limits} stopped by their time limit and queued again", flush=True)
    assert n_time_limits > 0
    assert all("goes on from here" in logs[place] for place in "13")
    _check(cli, settings, searched, logs, n_trials, found)
    return found


def _check(
    cli: Cli, settings: dict[str, str], searched: list[str], logs: dict[str, str], n_trials: int, found: Counter[str]
) -> None:
    """Check that every printed result is stored, that the budget is exact, and that fsck finds nothing."""
    opened = database.open_storage(settings["MFAS_STORAGE"])
    (study,) = optuna.get_all_study_names(opened)
    trials = database.load_study(opened, study).get_trials()
    opened.engine.dispose()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == n_trials
    stored = Counter((f"{trial.value:.4f}", trial.user_attrs[records.ARCHITECTURE]) for trial in complete)
    printed = Counter(pair for text in logs.values() for pair in _RESULT.findall(text))
    assert printed <= stored, printed - stored
    checked = json.loads(cli.ok("fsck", *searched, "--name", study, "--json", **settings))
    assert checked["sound"] is True, checked
    found["acknowledged"] = printed.total()
    found["complete"] = len(complete)
    found["repeated"] = sum(trial.state == TrialState.FAIL for trial in trials)
    found["running"] = sum(trial.state == TrialState.RUNNING for trial in trials)
    found["blobs"] = checked["checked"]["blobs"]
