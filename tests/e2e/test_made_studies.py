"""The studies of NTU RGB+D and MM-IMDB on generated files: to ranked networks, through faults and kills."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Cli
from .test_cli import refused

CHANCE_OF_SIX = 1 / 6
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module", params=["ntu", "mmimdb"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, str, str]:
    """A working folder in which a small study was searched from nothing, its name, and what the search printed."""
    cli, study = Cli(tmp_path_factory.mktemp(request.param)), f"{request.param}-small"
    if request.param == "ntu":
        shutil.copytree(request.getfixturevalue("made_ntu"), cli.folder / "made")
    else:
        cli.ok("data", "make", request.param, "--samples", "200", "--seed", "1", "made", "--quiet")
    return cli, study, cli.ok("search", "--study", study, "--data-root", "made")


@pytest.fixture(scope="module")
def made_ntu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 generated samples of NTU RGB+D."""
    cli = Cli(tmp_path_factory.mktemp("made"))
    cli.ok("data", "make", "ntu", "--samples", "200", "--seed", "1", "made", "--quiet")
    return cli.folder / "made"


@pytest.fixture(scope="module")
def read_ntu(made_ntu: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A working folder into which they were read without interruption."""
    cli = Cli(tmp_path_factory.mktemp("read"))
    cli.ok("data", "check", "--study", "ntu-small", "--data-root", str(made_ntu), "--quiet")
    return cli


def shorter(cli: Cli, study: str, epochs: int) -> str:
    """Write the study with a shorter training of its backbones, and return its file."""
    text = (STUDIES / f"{study}.toml").read_text(encoding="utf-8")
    changed, n = re.subn(r"training = \{ epochs = \d+,", f"training = {{ epochs = {epochs},", text)
    assert n == 2
    (cli.folder / "shorter.toml").write_text(changed, encoding="utf-8")
    return "shorter.toml"


def test_from_nothing_to_ranked_networks(searched: tuple[Cli, str, str]) -> None:
    cli, study, printed = searched
    assert printed.startswith("STAND-IN: stand-in for ")
    assert "not the data set itself" in printed
    assert json.loads((cli.folder / "made" / "STAND-IN.json").read_text())["settings"]["samples"] == 200
    status = cli.json("status", "--study", study)
    assert "samples 200" in status["stand_in"]
    assert status["data_card"].startswith("STAND-IN: ")
    assert [network["architecture"] in printed for network in status["best"]] == [True] * 5
    alone = [record["validation_score"] for record in status["backbones"].values()]
    assert len(alone) == 2
    assert min(alone) > CHANCE_OF_SIX + 0.1
    assert status["best"][0]["score"] > max(alone) + 0.05


def test_a_stand_in_takes_nobodys_place(searched: tuple[Cli, str, str]) -> None:
    """What was made of it is not used when real data are asked for, nor is the study gone on with."""
    cli, study, _ = searched
    (cli.folder / "empty").mkdir(exist_ok=True)
    command = ["search", "--study", study, "--data-root", "empty"]
    assert "found empty (not marked as a stand-in)" in refused(cli, *command)
    assert "mfas-optuna data make" in refused(cli, *command, "--name", "another")


# Faults.


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def spoil_ntu(root: Path) -> dict[str, str]:
    """Spoil five training samples in five ways; return what must be said of each."""
    skeletons, videos = root / "nturgb+d_skeletons", root / "nturgb+d_rgb"
    names = sorted(file.stem for file in skeletons.glob("*P001*.skeleton"))[:5]
    files = [skeletons / f"{name}.skeleton" for name in names]
    os.truncate(files[0], files[0].stat().st_size // 2)
    lines = files[1].read_text().split("\n")
    joint = next(number for number, line in enumerate(lines) if len(line.split()) == 12)
    lines[joint] = " ".join(["nan", *lines[joint].split()[1:]])
    files[1].write_text("\n".join(lines))
    files[2].write_text("3\n0\n0\n0\n")
    (videos / f"{names[3]}_rgb.avi").write_bytes(b"no video" * 100)
    (videos / f"{names[4]}_rgb.avi").unlink()
    return {
        names[0]: "line ",
        names[1]: f"line {joint + 1}: expected the position of joint 1 in metres, found nan",
        names[2]: "there is no body in any of its 3 frames. Unpack or fetch the file again, or leave the sample out.",
        names[3]: "cannot be decoded",
        names[4]: "no video file: ",
    }


def spoil_mmimdb(root: Path) -> dict[str, str]:
    """Spoil five films in five ways; return what must be said of each."""
    from PIL import Image

    splits = json.loads((root / "split.json").read_text())
    names = splits["train"][:5]
    files = [root / "dataset" / f"{name}.jpeg" for name in names]
    os.truncate(files[0], files[0].stat().st_size // 2)
    Image.new("1", (20_000, 10_000)).save(files[1], format="PNG")
    file = root / "dataset" / f"{names[2]}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "genres": []}))
    files[3].unlink()
    splits["test"].append(names[4])
    (root / "split.json").write_text(json.dumps(splits))
    return {
        names[0]: "the poster cannot be read (",
        names[1]: "limit against decompression bombs",
        names[2]: "genres: expected a list of names, found none.",
        names[3]: f"the folder has no {names[3]}.jpeg.",
        names[4]: f"{names[4]} is in test and already in train.",
    }


SPOIL: dict[str, Callable[[Path], dict[str, str]]] = {"ntu": spoil_ntu, "mmimdb": spoil_mmimdb}


@pytest.mark.parametrize("kind", SPOIL)
def test_all_that_is_wrong_is_listed_and_left_out_on_request(kind: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    study = shorter(cli, f"{kind}-small", 1)
    cli.ok("data", "make", kind, "--samples", "60", "--classes", "3", "made", "--quiet")
    said = SPOIL[kind](tmp_path / "made")
    check = ["data", "check", "--study", study, "--data-root", "made"]
    result = cli.run(*check)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(said) == 5
    for name, text in said.items():
        (line,) = (line for line in errors if name in line)
        assert text in line
        assert "eave the" in line or "--skip-bad" in line or "leave it out" in line
    assert (
        f"5 errors, 0 warnings. `mfas-optuna {' '.join(check[:4])} --skip-bad` leaves 5 samples out." in result.stdout
    )
    left_out = f"left out, 5: {', '.join(sorted(said))}."
    assert left_out in cli.ok(*check, "--skip-bad")
    assert cli.json("search", "--study", study, "--data-root", "made", "--trials", "15")["n_finished"] == 15
    assert left_out in cli.json("status", "--study", study)["data_card"]


# Kills.

COUNTED = """
from pathlib import Path
from mfas_optuna.datasets import building

building._CHECKPOINT_S = 0.05
read = building._read

def counted(source, samples, n_threads):
    for outcome in read(source, samples, n_threads):
        with open("read.txt", "a") as file:
            file.write(".")
        yield outcome

building._read = counted
from mfas_optuna.cli import main
main()
"""


def kill_when(cli: Cli, command: list[str], has_come: Callable[[], bool]) -> None:
    process = subprocess.Popen(command, cwd=cli.folder, env=cli.environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not has_come():
        time.sleep(0.002)
    assert process.poll() is None, f"ended before the signal: {process.communicate()}"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def digests(cli: Cli) -> dict[str, Any]:
    (manifest,) = (cli.home / "data").glob("ntu-*/manifest.json")
    return dict(json.loads(manifest.read_text())["arrays"])


def n_kept(cli: Cli) -> int:
    """Return how many samples an interrupted reading has kept."""
    try:
        return sum(int(np.load(file).sum()) for file in (cli.home / "data").glob(".reading-*/*.reading.json.npy"))
    except (ValueError, EOFError):  # Just being written.
        return 0


def test_a_killed_reading_goes_on(made_ntu: Path, read_ntu: Cli, tmp_path: Path) -> None:
    check = ["data", "check", "--study", "ntu-small", "--data-root", str(made_ntu), "--quiet"]
    killed = Cli(tmp_path)
    counted = [sys.executable, "-c", COUNTED, *check]
    for n in (50, 120):
        kill_when(killed, counted, lambda n=n: n_kept(killed) >= n)  # type: ignore[misc]
    n_left = 200 - n_kept(killed)
    (killed.folder / "read.txt").unlink()
    result = subprocess.run(counted, cwd=killed.folder, env=killed.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len((killed.folder / "read.txt").read_text()) == n_left <= 80
    assert digests(killed) == digests(read_ntu)
    assert [folder.name for folder in (killed.home / "data").iterdir()] == [
        folder.name for folder in (read_ntu.home / "data").iterdir()
    ]


def test_a_killed_training_of_backbones_goes_on(made_ntu: Path, read_ntu: Cli, tmp_path: Path) -> None:
    whole, killed = Cli(tmp_path / "whole"), Cli(tmp_path / "killed")
    shutil.copytree(read_ntu.folder, whole.folder)
    prepare = ["prepare", "--study", shorter(whole, "ntu-small", 3), "--data-root", str(made_ntu), "--quiet"]
    shutil.copytree(whole.folder, killed.folder)
    whole.ok(*prepare)
    backbones = killed.home / "backbones"
    command = [sys.executable, "-c", "from mfas_optuna.cli import main; main()", *prepare]
    for modality in ("video", "pose"):
        kill_when(
            killed,
            command,
            lambda modality=modality: any(  # type: ignore[misc]
                n_batches(file) >= 8 for file in backbones.glob(f".partial-ntu-{modality}-*/checkpoint.json")
            ),
        )
        assert not list(backbones.glob(f"ntu-{modality}-*.json"))
    killed.ok(*prepare)
    assert weights(killed) == weights(whole)
    assert list(backbones.glob(".partial-*")) == []


def n_batches(checkpoint: Path) -> int:
    try:
        return int(json.loads(checkpoint.read_text())["state"].removeprefix("state-").removesuffix(".safetensors"))
    except FileNotFoundError:
        return 0


def weights(cli: Cli) -> dict[str, str]:
    return {file.name: json.loads(file.read_text())["digest"] for file in (cli.home / "backbones").glob("*.json")}
