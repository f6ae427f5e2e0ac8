"""`mfas-optuna slurm`: a job array whose jobs are workers of one study."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import typer

from mfas_optuna.cli.options import (
    DataRoot,
    Joint,
    Mode,
    Name,
    Sampler,
    Seed,
    Study,
    Trials,
    clear_errors,
    names_of,
    specs,
    worker_arguments,
)

NOTICE_S = 60
"""Seconds before the time limit at which a worker is told to stop; Slurm may do so a minute earlier."""
MOST_WORKERS = 100_000
_TIME = re.compile(r"(\d+)|(\d+):(\d\d)|(\d+):(\d\d):(\d\d)|(\d+)-(\d\d?)(?::(\d\d))?(?::(\d\d))?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]*")
_MEMORY = re.compile(r"\d+[KMGT]?")
_EXPORTED = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "USER",
    "VIRTUAL_ENV",
)
_EXPORTED_PREFIXES = ("MFAS_", "PG", "AWS_", "AZURE_")


@dataclass(frozen=True, slots=True)
class JobArray:
    """What is asked of Slurm.

    Attributes:
        n_workers: Jobs of the array, a worker each.
        arguments: Of `mfas-optuna worker`.
        exported: Names of environment variables that the jobs get from whoever submits; never their values.
        required: Those of them without which a job must not start.
        folder: Where jobs run and write their output.
        title: The jobs' name.
        python: The interpreter, as the nodes see it.
        partition: Partition, or Slurm's default.
        time: Time limit in Slurm's notation, or the partition's.
        gpus: For each worker.
        cpus: For each worker.
        memory: For each worker, in Slurm's notation, or the partition's default.
        at_once: Jobs that run at the same time at most, or as many as there is room for.
        node: The one node that all run on, or any.
        goes_on: Whether a job that its time limit stops is queued again while the study is not over.
        further: Further options of sbatch, one a line.
    """

    n_workers: int
    arguments: Sequence[str]
    exported: Sequence[str]
    required: Sequence[str]
    folder: Path
    title: str
    python: str = sys.executable
    partition: str | None = None
    time: str | None = None
    gpus: int = 0
    cpus: int = 1
    memory: str | None = None
    at_once: int | None = None
    node: str | None = None
    goes_on: bool = True
    further: Sequence[str] = ()

    def script(self) -> str:
        """Return the script for sbatch.

        The time limit comes to the script as SIGUSR1 and preemption as SIGTERM; both become a SIGTERM of the worker,
        which gives its trials back and ends with 143. A preempted job is queued again by Slurm, one that reached its
        time limit by itself.
        """
        options = {
            "job-name": self.title,
            "array": f"1-{self.n_workers}" + ("" if self.at_once is None else f"%{self.at_once}"),
            "partition": self.partition,
            "time": self.time,
            "nodelist": self.node,
            "nodes": "1",
            "ntasks": "1",
            "cpus-per-task": str(self.cpus),
            "gres": f"gpu:{self.gpus}" if self.gpus else None,
            "mem": self.memory,
            "requeue": "",
            "signal": f"B:USR1@{NOTICE_S}",
            "open-mode": "append",
            "output": f"{self.title}-%A_%a.log",
            "export": ",".join(self.exported),
        }
        given = [f"--{key}{'=' if value else ''}{value}" for key, value in options.items() if value is not None]
        # sbatch reads its lines as a shell does, as far as quotes go.
        directives = "\n".join(f"#SBATCH {line}" for line in [*given, f'--chdir="{self.folder}"', *self.further])
        checks = "\n".join(f': "${{{name}:?is not set; submit from where it is}}"' for name in self.required)
        command = shlex.join([self.python, "-m", "mfas_optuna", "worker", *self.arguments])
        return _SCRIPT.format(
            directives=directives,
            checks=checks,
            python=shlex.quote(self.python),
            command=command,
            goes_on="yes" if self.goes_on else "no",
        )


_SCRIPT = """#!/bin/bash
# Workers of one study, written by `mfas-optuna slurm`: any of them may die, and the same script may be submitted again.
{directives}
{checks}
if [ ! -x {python} ]; then
    echo "$(hostname):" {python} "is not there. Write this script with an interpreter that every node has." >&2
    exit 2
fi
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
at_time_limit=no
{command} < /dev/null &
worker=$!
trap 'at_time_limit=yes; kill -TERM "$worker" 2> /dev/null' USR1
trap 'kill -TERM "$worker" 2> /dev/null' TERM
while kill -0 "$worker" 2> /dev/null; do wait "$worker"; done
wait "$worker"
code=$?
if [ "$code" = 143 ] && [ "$at_time_limit" = yes ] && [ {goes_on} = yes ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def minutes_of(text: str) -> float:
    """Return a time limit in Slurm's notation in minutes.

    Raises:
        ValueError: It is none of M, M:S, H:M:S, D-H, D-H:M and D-H:M:S.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    only_minutes, minutes, seconds, hours, of_hour, s, days, h, m, of_minute = (
        int(part or 0) for part in found.groups()
    )
    return (
        only_minutes
        + minutes
        + seconds / 60
        + 60 * hours
        + of_hour
        + s / 60
        + 1440 * days
        + 60 * h
        + m
        + of_minute / 60
    )


def exported_names(environment: Mapping[str, str]) -> list[str]:
    """Return the variables of an environment that a worker may need, by name."""
    return sorted(name for name in environment if name in _EXPORTED or name.startswith(_EXPORTED_PREFIXES))


def problems_of(array: JobArray, *, storage_url: str, weights: str | None) -> list[str]:
    """Return what must be mended before the array can run, each with what to do."""
    problems = []
    if storage_url.startswith("sqlite") and array.node is None:
        problems.append(
            "MFAS_STORAGE: expected PostgreSQL, found SQLite, whose locks do not work between nodes that share a "
            "folder. Set MFAS_STORAGE=postgresql+psycopg://user@host/name, or name one node by --node."
        )
    if weights is None and array.node is None:
        problems.append(
            "MFAS_WEIGHTS: expected a folder or URL that all nodes reach, found none, so that each would look for "
            "weights in its own home. Set it, or name one node by --node."
        )
    if array.time is not None:
        try:
            is_too_short = minutes_of(array.time) < 2 * NOTICE_S / 60 + 1
        except ValueError:
            problems.append(f"--time: expected M, M:S, H:M:S, D-H, D-H:M or D-H:M:S, found {array.time!r}.")
        else:
            if is_too_short:
                problems.append(
                    f"--time: expected at least {2 * NOTICE_S // 60 + 1} minutes, found {array.time}: a worker is told "
                    "to stop up to two minutes before the end."
                )
    for option, word in (("--partition", array.partition), ("--node", array.node)):
        if word is not None and not _WORD.fullmatch(word):
            problems.append(f"{option}: expected a name, found {word!r}.")
    if array.node is not None and re.search(r"[,\[]", array.node):
        problems.append(f"--node: expected one node, found {array.node!r}.")
    if array.memory is not None and not _MEMORY.fullmatch(array.memory):
        problems.append(f"--mem: expected a number with K, M, G or T, found {array.memory!r}.")
    problems += [
        f"--sbatch: expected one option that begins with --, found {option!r}."
        for option in array.further
        if not option.startswith("--") or "\n" in option
    ]
    if any(character in str(array.folder) for character in '"\\\n%'):
        problems.append(f"{array.folder}: Slurm cannot run jobs in a folder of this name. Run it from another.")
    return problems


def _submit(script: Path) -> None:
    from mfas_optuna.errors import SubmissionError

    program = shutil.which("sbatch")
    if program is None:
        raise SubmissionError("sbatch is not on the PATH: this is no machine of a Slurm cluster. Leave --submit out.")
    result = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SubmissionError(f"sbatch refused {script}: {result.stderr.strip() or f'exit code {result.returncode}'}")
    typer.echo(result.stdout.strip())


def slurm(
    study: Study,
    workers: Annotated[int, typer.Option("--workers", min=1, max=MOST_WORKERS, help="Workers, each a job.")],
    name: Name = None,
    sampler: Sampler = None,
    mode: Mode = None,
    trials: Trials = None,
    seed: Seed = None,
    joint: Joint = None,
    data_root: DataRoot = None,
    partition: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--partition", help="Partition \\[default: Slurm's]."),
    ] = None,
    time: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--time", help="Time limit of each job, as Slurm writes it \\[default: the partition's]."),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus-per-worker", min=0, help="0: workers compute on the CPU.")] = 0,
    cpus: Annotated[int, typer.Option("--cpus", min=1, help="CPUs, and threads, of each worker.")] = 1,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--mem", help="Memory of each worker, such as 8G \\[default: the partition's]."),
    ] = None,
    array_limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--array-limit", min=1, help="Workers that run at the same time at most."),
    ] = None,
    node: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--node", help="Run all workers on this node; only then may the database be SQLite."),
    ] = None,
    further: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--sbatch", help="A further option of sbatch, such as --sbatch=--account=x; can be repeated."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="A job that reached its time limit is not queued again.")
    ] = False,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="File of the script \\[default: standard output; mfas-NAME.sh to submit]."),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it by sbatch.")] = False,
) -> None:
    """Write a Slurm job array whose jobs are workers of a study; with --submit, submit it.

    The database comes from MFAS_STORAGE, which may hold a password: the script has its name alone, and jobs get its
    value from the environment of whoever submits. Run it where the jobs shall run: study files are looked for there.
    """
    with clear_errors():
        from mfas_optuna import spec as settings
        from mfas_optuna.errors import SpecError, SubmissionError

        url, in_database = names_of(
            study, name=name, storage=None, sampler=sampler, mode=mode, seed=seed, trials=trials
        )
        settings.joint(joint)
        _, _, resolved = specs(study, sampler, mode, seed, trials)
        array = JobArray(
            n_workers=workers,
            arguments=worker_arguments(
                study=study, name=in_database, sampler=sampler, mode=mode, trials=trials, seed=seed, joint=joint,
                data_root=None if data_root is None else data_root.absolute(), device="cuda" if gpus else "cpu",
            ),
            exported=exported_names(os.environ),
            required=[variable for variable in ("MFAS_STORAGE", "MFAS_WEIGHTS") if os.environ.get(variable)],
            folder=Path.cwd(),
            title=f"mfas-{in_database}",
            partition=partition,
            time=time,
            gpus=gpus,
            cpus=cpus,
            memory=memory,
            at_once=array_limit,
            node=node,
            goes_on=not once,
            further=further or (),
        )  # fmt: skip
        problems = problems_of(array, storage_url=url, weights=settings.weights_location(None, resolved))
        if problems:
            raise SpecError(problems)
        if output is None and not submit:
            typer.echo(array.script(), nl=False)
            return
        path = output or Path(f"{array.title}.sh")
        try:
            path.write_text(array.script(), encoding="utf-8")
        except OSError as error:
            raise SubmissionError(
                f"{path}: the script cannot be written: {error.strerror}. Choose another -o."
            ) from error
        typer.echo(f"{path}: an array of {workers} jobs", err=True)
        if submit:
            _submit(path)
        else:
            typer.echo(f"Next: sbatch {shlex.quote(str(path))}", err=True)
