"""A whole study, stage by stage: the wall-clock seconds and the peak memory of each.

    python -m benchmarks.whole_search --study digits
    python -m benchmarks.whole_search --study avmnist --channels-factor 3 --home ~/bench --data-root ~/data

Each stage is a process of its own, the command line of mfas-optuna, in a home that starts empty:

1. `data build`;
2. `prepare`: trains the backbones and extracts their features a first time; beside it the seconds that each backbone's
   training is recorded with;
3. `prepare` with the features removed: extraction alone;
4. `search` with the features removed: extraction and search in one process, as a user has them who brings trained
   backbones. **This is the one with targets:** at most 300 s and 2 GiB for avmnist with 24 first channels;
5. `search` on cached features: the search alone.

`--only-target` leaves out 3 and 5. With a `--home` that an earlier run left, the data and backbones in it are used
again, and 1 and 2 only check them. A home that is not empty and was not made here is refused.

The seconds of a process include its start (importing torch takes some). Peak memory is the resident set that the
operating system reports when the process ends (`ru_maxrss`): the largest of it and its own child processes, not their
sum; pages of memory-mapped files count when they were read. This process imports no torch: what it occupies would be
the least that it sees of its children.

With `--channels-factor` the study is what `mfas-optuna show` prints, its backbones' channels multiplied.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report import Verdict, machine, table
from mfas_optuna.spec import find_study, load_spec, storage_url

CLI = [sys.executable, "-c", "from mfas_optuna.cli import main; main()"]
SECONDS_TARGET = 300.0
GIB = 2**30
MEMORY_TARGET_GIB = 2.0
N_TRAIN_OF_TARGETS = 50_000
_MARK = "made-by-benchmarks"
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_CHANNELS = re.compile(r"^channels = (\[[^\]]*\])$", re.MULTILINE)
WHOLE = "extraction and search"


@dataclass(frozen=True)
class Stage:
    """What one process took.

    Attributes:
        name: What it did.
        seconds: Wall-clock seconds from its start to its end.
        peak_bytes: Its largest resident set.
        parts_s: Seconds of what it did, as the program records them.
        output: Its standard output.
    """

    name: str
    seconds: float
    peak_bytes: int
    parts_s: Mapping[str, float]
    output: str


def run_stage(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Stage:
    """Run a command to its end, its messages shown, its standard output kept.

    Raises:
        SystemExit: It failed.
    """
    print(f"... {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), stdout=output)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # It is waited for; Popen must not wait again.
        output.seek(0)
        text = output.read().decode()
    if process.returncode != 0:
        raise SystemExit(f"{name}: `{' '.join(command)}` ended with {process.returncode}.\n{text}")
    return Stage(name, seconds, usage.ru_maxrss * _MAXRSS_UNIT, {}, text)


def multiplied(study_file: str, factor: int) -> str:
    """Return the text of a study file with the channels of every backbone multiplied."""

    def of_backbone(match: re.Match[str]) -> str:
        return f"channels = {json.dumps([factor * channels for channels in json.loads(match[1])])}"

    changed, n_backbones = _CHANNELS.subn(of_backbone, study_file)
    if n_backbones == 0:
        raise SystemExit("The study has no backbone with channels to multiply.")
    return changed


class Home:
    """A home folder for this benchmark alone, and the commands that run in it."""

    def __init__(self, folder: Path, data_root: Path | None) -> None:
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
            raise SystemExit(f"{folder}: expected an empty folder, or one that this benchmark made. Name another.")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
        self.folder = folder
        self.environment = {**os.environ, "MFAS_HOME": str(folder)}
        self.environment.pop("MFAS_STORAGE", None)
        if data_root is not None:
            self.environment["MFAS_DATA"] = str(data_root.absolute())

    def run(self, name: str, *arguments: str) -> Stage:
        """Run a command of mfas-optuna."""
        return run_stage(name, [*CLI, *arguments], self.environment)

    def study(self, study: str, channels_factor: int) -> str:
        """Return what `--study` is given: the study itself, or a file with its channels multiplied."""
        if channels_factor == 1:
            return study
        stem = find_study(study).stem
        path = self.folder / f"{stem}-x{channels_factor}.toml"
        path.write_text(multiplied(self.run("show", "show", "--study", study).output, channels_factor))
        return str(path)

    def forget_features(self) -> None:
        """Remove the cached features, so that they are extracted again."""
        shutil.rmtree(self.folder / "features", ignore_errors=True)


def measure(study: str, home: Home, *, channels_factor: int = 1, only_target: bool = False) -> list[Stage]:
    """Run a study stage by stage.

    Args:
        study: Name or file of the study.
        home: Where.
        channels_factor: What the channels of its backbones are multiplied by.
        only_target: Leave out extraction alone and the search alone.
    """
    chosen = home.study(study, channels_factor)
    name = f"{Path(chosen).stem}-{time.time_ns()}"
    url = storage_url(None, None, home.folder, {})
    search = ("search", "--study", chosen, "--storage", url, "--json", "--quiet", "--name")
    stages = [home.run("data", "data", "build", chosen, "--quiet")]
    backbones = home.run("backbones and extraction", "prepare", "--study", chosen, "--quiet")
    if not only_target:
        home.forget_features()
        stages.append(home.run("extraction alone", "prepare", "--study", chosen, "--quiet"))
    home.forget_features()
    whole = home.run(WHOLE, *search, name)
    outcome = json.loads(whole.output)
    stages.append(replace(whole, parts_s=outcome["timings_s"]))
    recorded = {f"backbone {modality}": each["training_s"] for modality, each in outcome["backbones"].items()}
    stages.insert(1, replace(backbones, parts_s=recorded))
    if not only_target:
        alone = home.run("search alone", *search, f"{name}-again")
        stages.append(replace(alone, parts_s=json.loads(alone.output)["timings_s"]))
    return stages


def show(stages: Sequence[Stage], *, with_targets: bool) -> list[Verdict]:
    """Print the stages, and the one with targets beside them."""
    cells = [
        [
            stage.name,
            f"{stage.seconds:.1f}",
            f"{stage.peak_bytes / GIB:.2f}",
            ", ".join(f"{part} {seconds:.1f}" for part, seconds in stage.parts_s.items()),
        ]
        for stage in stages
    ]
    print(table(["stage", "seconds", "peak, GiB", "of which, seconds"], cells))
    found = verdicts(stages) if with_targets else []
    for verdict in found:
        print(verdict)
    return found


def verdicts(stages: Sequence[Stage]) -> list[Verdict]:
    """Return extraction and search in one process beside the targets."""
    (whole,) = (stage for stage in stages if stage.name == WHOLE)
    return [
        Verdict(f"{WHOLE}, wall clock", whole.seconds, SECONDS_TARGET, "at most", " s"),
        Verdict(f"{WHOLE}, peak memory", whole.peak_bytes / GIB, MEMORY_TARGET_GIB, "at most", " GiB"),
    ]


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="mfas-benchmark-") as folder:
        yield Path(folder)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="avmnist")
    parser.add_argument("--channels-factor", type=int, default=1)
    parser.add_argument("--home", type=Path, help="folder to work in and to leave [default: a temporary one]")
    parser.add_argument("--data-root", type=Path, help="folder of raw data [default: MFAS_DATA]")
    parser.add_argument("--threads", type=int, help="torch's threads outside the search [default: the environment's]")
    parser.add_argument("--only-target", action="store_true", help="leave out extraction alone and the search alone")
    given = parser.parse_args(argv)
    with _folder(given.home) as folder:
        home = Home(folder, given.data_root)
        if given.threads is not None:
            home.environment["OMP_NUM_THREADS"] = str(given.threads)
        print(f"Study {given.study}, channels x {given.channels_factor}, stage by stage; {machine()}")
        print(f"OMP_NUM_THREADS: {home.environment.get('OMP_NUM_THREADS', 'not set')}\n", flush=True)
        stages = measure(given.study, home, channels_factor=given.channels_factor, only_target=given.only_target)
        dataset = load_spec(find_study(given.study)).dataset
        show(stages, with_targets=dataset.name == "avmnist" and dataset.n_train >= N_TRAIN_OF_TARGETS)


if __name__ == "__main__":
    main()
