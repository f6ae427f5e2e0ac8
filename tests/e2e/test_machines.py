"""Two machines with a home each, one database and one store of weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND, TINY, Cli

SEARCH = ["search", "--study", "tiny", "--trials"]


@pytest.fixture
def far(cli: Cli, tmp_path: Path) -> Cli:
    """A second machine: the same study file, and nothing else."""
    folder = tmp_path / "far"
    shutil.copytree(cli.folder / "studies", folder / "studies")
    return Cli(folder)


def test_machines_share_a_study_and_only_the_first_trains_backbones(cli: Cli, far: Cli, tmp_path: Path) -> None:
    shared = {
        "MFAS_STORAGE": f"sqlite:///{tmp_path / 'shared.db'}",
        "MFAS_WEIGHTS": str(tmp_path / "weights"),
    }
    shutil.copytree(cli.home / "weights", tmp_path / "weights")
    shutil.rmtree(cli.home / "weights")
    cli.ok(*SEARCH, "6", **shared)
    joined = far.run(*SEARCH, "10", **shared)
    assert joined.returncode == 0, joined.stderr
    assert "training lenet" not in joined.stderr
    assert joined.stderr.count("was trained on another machine") == 2
    back = cli.run(*SEARCH, "14", **shared)
    assert back.returncode == 0, back.stderr
    # One trains heads to the end, the other exports the best of them: heads travel too, and everything is there.
    far.ok("train", "--study", "tiny", "--top", "1", "--seeds", "1", "--no-unfrozen", "--quiet", **shared)
    cli.ok("export", "--study", "tiny", "-o", str(tmp_path / "out"), "--no-onnx", "--quiet", **shared)
    checked = json.loads(cli.ok("fsck", "--study", "tiny", "--json", **shared))
    assert checked["sound"] is True
    assert checked["store"] == shared["MFAS_WEIGHTS"]
    assert checked["checked"]["finals"] > 0
    assert not (cli.home / "weights").exists()
    assert not (far.home / "weights").exists()
    # A third one that names no store is refused: it has no way to the backbones.
    refused = far.run(*SEARCH, "16", MFAS_STORAGE=shared["MFAS_STORAGE"], MFAS_HOME=str(tmp_path / "third"))
    assert refused.returncode == 2
    assert "--weights" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("dies", [False, True], ids=["both live", "the first dies"])
def test_of_two_machines_that_begin_a_study_at_once_one_trains_backbones(
    tmp_path: Path, postgres_url: str, dies: bool
) -> None:
    """The other waits and fetches them; when the first dies in the middle, the other trains them itself."""
    machines = []
    for name in ("near", "far"):
        (tmp_path / name / "studies").mkdir(parents=True)
        (tmp_path / name / "studies" / "tiny.toml").write_text(TINY.replace("epochs = 1 }", "epochs = 40 }"))
        machines.append(Cli(tmp_path / name))
    shared = {"MFAS_STORAGE": postgres_url, "MFAS_WEIGHTS": str(tmp_path / "weights")}
    first, second = machines
    with first.start(*SEARCH, "6", **shared) as at_work:
        assert at_work.stderr is not None
        assert any("training lenet" in line for line in at_work.stderr)
        with second.start(*SEARCH, "6", **shared) as waiting:
            assert waiting.stderr is not None
            assert any("Another worker is preparing this study's backbones; waiting" in line for line in waiting.stderr)
            if dies:
                at_work.kill()
            rest = "".join(waiting.stderr)
            assert waiting.wait(timeout=100) == 0, rest
        assert at_work.wait(timeout=100) == (-signal.SIGKILL if dies else 0)
    assert rest.count("training lenet") == (2 if dies else 0)
    assert rest.count("was trained on another machine") == (0 if dies else 2)
    checked = json.loads(second.ok("fsck", *SEARCH[1:], "6", "--json", **shared))
    assert checked["sound"] is True


def test_the_document(cli: Cli, postgres_url: str, tmp_path: Path) -> None:
    """Its commands as they stand, one block after the other, as another machine each."""
    document = Path(__file__).parents[2] / "docs" / "many-machines.md"
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    shutil.copy(cli.folder / "studies" / "tiny.toml", cli.folder / "studies" / "digits.toml")
    shutil.copytree(cli.home / "weights", tmp_path / "weights")
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    environment = cli.environment(MFAS_STORAGE=postgres_url, MFAS_WEIGHTS=str(tmp_path / "weights"), PATH=path)
    printed = []
    for block in blocks:
        result = subprocess.run(
            ["bash", "-e", "-c", block], cwd=cli.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (block, result.stdout, result.stderr)
        printed.append(result.stdout)
    assert "Best networks" in printed[0]
    assert "digits: sound" in printed[2]
    assert "--array=1-64" in (cli.folder / "digits.sh").read_text()
