"""A search whose file system fills up or turns read-only, or whose files are damaged; `fsck` says what is left."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfas_optuna.trials import read_weights
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.chaos

SEARCH = ["search", "--study", "tiny", "--sampler", "random", "--quiet", "--trials"]
FSCK = ["fsck", "--study", "tiny", "--sampler", "random", "--json", "--trials"]


@pytest.fixture
def small(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """The home's weights, moved to a file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    shutil.copytree(cli.home / "weights", folder / "weights")
    shutil.rmtree(cli.home / "weights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def stopped(cli: Cli, message: str, n_trials: str, **environment: str) -> int:
    """Search until it ends with a message, check what is there, and return how many trials are complete."""
    result = cli.run(*SEARCH, n_trials, **environment)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    checked = json.loads(cli.ok(*FSCK, n_trials, **environment))
    assert checked["sound"] is True
    return int(checked["checked"]["complete"])


def test_a_full_file_system(cli: Cli, small: Path) -> None:
    weights = {"MFAS_WEIGHTS": str(small / "weights")}
    filler = small / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(small).free - 32 * 1024)))
    n_before = stopped(cli, "No space left on device", "30", **weights)
    assert n_before < 30
    filler.unlink()
    cli.ok(*SEARCH, "30", **weights)
    checked = json.loads(cli.ok(*FSCK, "30", **weights))
    assert (checked["sound"], checked["checked"]["complete"]) == (True, 30)


def test_a_file_system_that_turns_read_only(cli: Cli, small: Path) -> None:
    weights = {"MFAS_WEIGHTS": str(small / "weights")}
    cli.ok(*SEARCH, "4", **weights)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert stopped(cli, "Read-only file system", "12", **weights) == 4
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    cli.ok(*SEARCH, "12", **weights)
    checked = json.loads(cli.ok(*FSCK, "12", **weights))
    assert (checked["sound"], checked["checked"]["complete"]) == (True, 12)


def test_blobs_that_are_flipped_or_cut_short_are_passed_over_and_named(cli: Cli) -> None:
    cli.ok(*SEARCH, "8")
    attributes = [trial["attributes"] for trial in cli.trials("tiny-random")]
    published = [layer.published for of_trial in attributes for layer in read_weights(of_trial)]
    flipped, cut = (cli.home / "weights" / digest[:2] / f"{digest}.safetensors" for digest in published[-2:])
    content = flipped.read_bytes()
    flipped.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    cut.write_bytes(cut.read_bytes()[:-3])
    cli.ok(*SEARCH, "20")
    result = cli.run(*FSCK, "20")
    assert result.returncode == 1
    checked = json.loads(result.stdout)
    assert checked["checked"]["complete"] == 20
    named = " ".join(problem["what"] for problem in checked["problems"])
    assert {problem["kind"] for problem in checked["problems"]} == {"blob"}
    assert len(checked["problems"]) == 2
    assert flipped.stem in named
    assert cut.stem in named


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_a_damaged_cache_is_refused_and_made_again(cli: Cli, damage: str) -> None:
    cli.ok(*SEARCH, "4")
    matrix = max(cli.home.glob("features/*/*.npy"), key=lambda path: path.stat().st_size)
    content = matrix.read_bytes()
    matrix.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "flipped" else content[: len(content) // 2])
    refused = cli.run(*SEARCH, "8")
    assert refused.returncode == 2, refused.stderr
    assert "mfas-optuna prepare --study tiny --force" in refused.stderr
    assert {problem["kind"] for problem in json.loads(cli.run(*FSCK, "8").stdout)["problems"]} == {"features"}
    cli.ok("prepare", "--study", "tiny", "--force", "--quiet")
    cli.ok(*SEARCH, "8")
    checked = json.loads(cli.ok(*FSCK, "8"))
    assert (checked["sound"], checked["checked"]["complete"]) == (True, 8)
