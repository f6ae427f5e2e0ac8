"""Real output of commands that take a prepared study; `Cli.run` holds all of it against the schemas."""

from __future__ import annotations

import json

from .conftest import Cli

STUDY = ["--study", "tiny"]


def test_commands_print_what_their_schemas_say(cli: Cli) -> None:
    assert cli.json("search", *STUDY, "--dry-run")["n_trials"] == 16
    assert cli.json("data", "build", "tiny")["folder"].startswith(str(cli.home))
    assert cli.json("data", "check", *STUDY)["is_usable"]
    assert set(cli.json("prepare", *STUDY)["backbones"]) == {"audio", "image"}
    assert cli.json("search", *STUDY, "--trials", "6")["n_new"] == 6
    assert cli.json("fsck", *STUDY, "--trials", "6")["sound"]
    assert cli.json("gc", "--dry-run")["dry_run"]
    failed = cli.run("status", *STUDY, "--name", "other", "--json")
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"]["type"] == "StorageError"
    assert cli.json("search", *STUDY)["n_finished"] == 16
    watched = cli.run("status", *STUDY, "--watch", "--json")
    assert json.loads(watched.stdout)["is_finished"]
