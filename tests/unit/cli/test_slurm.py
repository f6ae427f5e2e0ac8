"""The job script: its text, that it is a shell's, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mfas_optuna.cli import app
from mfas_optuna.cli.slurm import JobArray, exported_names, minutes_of, problems_of

POSTGRES = "postgresql+psycopg://me:secret@host/name"
SLURM = ["slurm", "--study", "digits", "--workers"]
ARRAY = JobArray(
    n_workers=64,
    arguments=["--study", "a b.toml"],
    exported=["MFAS_STORAGE", "PATH"],
    required=["MFAS_STORAGE"],
    folder=Path("/work/my studies"),
    title="mfas-digits",
    python="/opt/it's/python",
)


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, a database and a place for weights."""
    for name in [name for name in os.environ if name.startswith("MFAS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MFAS_STORAGE", POSTGRES)
    monkeypatch.setenv("MFAS_WEIGHTS", "/shared/weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_script(tmp_path: Path) -> None:
    array = replace(ARRAY, partition="gpu", time="1-12", gpus=2, cpus=4, memory="8G", at_once=16, further=["--qos=x"])
    text = array.script()
    assert directives(text) == [
        "--job-name=mfas-digits",
        "--array=1-64%16",
        "--partition=gpu",
        "--time=1-12",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--gres=gpu:2",
        "--mem=8G",
        "--requeue",
        "--signal=B:USR1@60",
        "--open-mode=append",
        "--output=mfas-digits-%A_%a.log",
        "--export=MFAS_STORAGE,PATH",
        '--chdir="/work/my studies"',
        "--qos=x",
    ]
    assert "worker --study 'a b.toml' < /dev/null &" in text
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(("sent", "requeued"), [("USR1", True), ("TERM", False)])
def test_both_signals_stop_the_worker_and_a_time_limit_queues_the_job_again(
    tmp_path: Path, sent: str, requeued: bool
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ntrap 'echo stopped; exit 143' TERM\necho begun\nwhile :; do sleep 0.05; done\n")
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@"\n')
    for path in (program, tmp_path / "scontrol"):
        path.chmod(0o700)
    script = tmp_path / "job.sh"
    script.write_text(replace(ARRAY, python=str(program)).script(), encoding="utf-8")
    values = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MFAS_STORAGE": "x", "SLURM_JOB_ID": "7"}
    with subprocess.Popen(["bash", script], env=values, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "begun\n"
        subprocess.run(["kill", f"-{sent}", str(job.pid)], check=True)
        rest = job.stdout.read()
        assert job.wait(timeout=60) == 143
    assert rest == "stopped\n" + ("requeue 7\n" if requeued else "")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_worker_s_exit_code_is_the_job_s(tmp_path: Path, code: int) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o700)
    script = replace(ARRAY, python=str(program)).script()
    values = {"PATH": os.environ["PATH"], "MFAS_STORAGE": "x"}
    assert subprocess.run(["bash"], input=script, text=True, env=values, check=False).returncode == code


def test_a_job_without_its_database_or_interpreter_does_not_start() -> None:
    script = ARRAY.script()
    values = {"PATH": os.environ["PATH"]}
    result = subprocess.run(["bash"], input=script, text=True, env=values, capture_output=True, check=False)
    assert result.returncode != 0
    assert "MFAS_STORAGE: is not set" in result.stderr
    values["MFAS_STORAGE"] = "x"
    result = subprocess.run(["bash"], input=script, text=True, env=values, capture_output=True, check=False)
    assert result.returncode == 2
    assert "/opt/it's/python is not there" in result.stderr


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("5:30", 5.5), ("1:00:00", 60), ("2-0", 2880), ("1-02:30", 1590), ("0-00:10:30", 10.5)],
)
def test_time_limits(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1-", "5:3"])
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        minutes_of(text)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (replace(ARRAY, time="soon"), "--time: expected M, M:S"),
        (replace(ARRAY, time="2"), "--time: expected at least 3 minutes, found 2"),
        (replace(ARRAY, partition="a b"), "--partition: expected a name, found 'a b'"),
        (replace(ARRAY, node="n[1-3]"), "--node: expected one node"),
        (replace(ARRAY, memory="lots"), "--mem: expected a number with K, M, G or T"),
        (replace(ARRAY, further=["account=x"]), "--sbatch: expected one option that begins with --"),
        (replace(ARRAY, further=["--x\nrm"]), "--sbatch: expected one option"),
        (replace(ARRAY, folder=Path('/a"b')), "Slurm cannot run jobs in a folder of this name"),
    ],
)
def test_what_is_refused(array: JobArray, message: str) -> None:
    (problem,) = problems_of(array, storage_url=POSTGRES, weights="/shared")
    assert problem.startswith(message) or message in problem


def test_sqlite_and_weights_in_the_home_are_for_one_node() -> None:
    storage, weights = problems_of(ARRAY, storage_url="sqlite:////shared/mfas.db", weights=None)
    assert "MFAS_STORAGE: expected PostgreSQL, found SQLite" in storage
    assert "MFAS_WEIGHTS: expected a folder or URL" in weights
    assert problems_of(replace(ARRAY, node="n1"), storage_url="sqlite:////x.db", weights=None) == []


def test_the_jobs_get_what_they_need_by_name() -> None:
    names = exported_names({"MFAS_HOME": "", "PGPASSFILE": "", "AWS_REGION": "", "HOME": "", "SECRET": "", "TERM": ""})
    assert names == ["AWS_REGION", "HOME", "MFAS_HOME", "PGPASSFILE"]


def test_the_command_writes_no_password(environment: Path) -> None:
    result = CliRunner().invoke(app, [*SLURM, "4", "--trials", "9", "--gpus-per-worker", "1", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    assert "--array=1-4" in directives(result.stdout)
    assert "worker --study digits --name digits-seed3 --trials 9 --seed 3 --device cuda < /dev/null" in result.stdout


def test_the_command_refuses_sqlite(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MFAS_STORAGE")
    result = CliRunner().invoke(app, [*SLURM, "4"])
    assert result.exit_code == 2
    assert "found SQLite" in result.stderr


def test_the_command_submits(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bash, sbatch = shutil.which("bash"), environment / "bin" / "sbatch"
    sbatch.parent.mkdir()
    monkeypatch.setenv("PATH", str(sbatch.parent))
    missing = CliRunner().invoke(app, [*SLURM, "2", "--submit"])
    assert missing.exit_code == 2
    assert "sbatch is not on the PATH" in missing.stderr
    for text, code, said in (
        ('echo "Submitted batch job 5: $1"', 0, "Submitted batch job 5: jobs.sh"),
        ("echo no such partition >&2; exit 1", 2, "sbatch refused jobs.sh: no such partition"),
    ):
        sbatch.write_text(f"#!{bash}\n{text}\n")
        sbatch.chmod(0o700)
        result = CliRunner().invoke(app, [*SLURM, "2", "--submit", "-o", "jobs.sh"])
        assert result.exit_code == code, result.output
        assert said in result.output
    assert (environment / "jobs.sh").read_text().startswith("#!/bin/bash\n")
    nowhere = CliRunner().invoke(app, [*SLURM, "2", "-o", "no/such/folder.sh"])
    assert nowhere.exit_code == 2
    assert "cannot be written" in nowhere.stderr
