"""`fsck` and `gc` as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .conftest import Cli


def weights(cli: Cli) -> list[Path]:
    return sorted((cli.home / "weights").rglob("*.safetensors"))


def test_a_search_is_sound_until_it_is_damaged(cli: Cli) -> None:
    cli.ok("search", "--study", "tiny", "--trials", "6", "--quiet")
    sound = cli.json("fsck", "--study", "tiny")
    assert sound["sound"] is True
    assert sound["problems"] == []
    assert sound["checked"]["complete"] == 6

    unused = cli.home / "weights" / "ab" / f"ab{'0' * 62}.safetensors"
    unused.parent.mkdir(exist_ok=True)
    unused.write_bytes(b"12345")
    os.utime(unused, (1, 1))
    there = weights(cli)
    would = cli.json("gc", "--dry-run")
    assert (would["dry_run"], would["n_removed"], would["bytes"]) == (True, 1, 5)
    assert would["studies"][0]["study"] == "tiny"
    assert weights(cli) == there
    assert "Removed 1 files and folders, 5 bytes" in cli.ok("gc", "--study", "tiny")
    assert weights(cli) == [path for path in there if path != unused]
    assert "tiny: sound; checked 6 trials (6 complete)" in cli.ok("fsck", "--study", "tiny")

    first, second, *_ = weights(cli)
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    damaged = cli.run("fsck", "--study", "tiny", "--json")
    assert damaged.returncode == 1
    problems = json.loads(damaged.stdout)["problems"]
    assert sorted(("missing" in problem["what"], problem["kind"]) for problem in problems) == [
        (False, "blob"),
        (True, "blob"),
    ]
    in_words = cli.run("fsck", "--study", "tiny", "--repair")
    assert in_words.returncode == 1
    assert "2 problems" in in_words.stdout


def test_wrong_input(cli: Cli) -> None:
    for arguments in (
        ["fsck", "--study", "tiny"],  # There is no database yet.
        ["gc", "--weights", "nonsense://x"],
    ):
        refused = cli.run(*arguments)
        assert refused.returncode == 2, (arguments, refused.stdout, refused.stderr)
        assert refused.stderr.startswith("mfas-optuna: ")
