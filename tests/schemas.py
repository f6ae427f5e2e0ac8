"""Holds what commands print with --json against their schemas."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jsonschema

from mfas_optuna.cli.schemas import SCHEMAS, schema


def name_of(arguments: Sequence[str]) -> str:
    """Return the name under which the output of a command line has its schema."""
    if arguments[0] == "search" and "--dry-run" in arguments:
        return "search --dry-run"
    both = " ".join(arguments[:2])
    return both if both in SCHEMAS else arguments[0]


@functools.cache
def validator(name: str) -> Any:
    """Return what checks values against a schema, which must itself be one."""
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def check_output(arguments: Sequence[str], stdout: str, exit_code: int) -> None:
    """Raise unless standard output is what the schema says: one JSON value, or one a line with --watch.

    A command that failed printed its error, or its result when that is what the exit code tells of, or nothing when
    its options were wrong or a signal stopped it.
    """
    texts = stdout.splitlines() if "--watch" in arguments else [stdout] * bool(stdout)
    assert texts or exit_code
    for text in texts:
        values = json.loads(text)
        is_error = exit_code != 0 and "error" in values
        validator("error" if is_error else name_of(arguments)).validate(values)
        assert not is_error or values["error"]["exit_code"] == exit_code
