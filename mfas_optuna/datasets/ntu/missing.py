"""Samples that the data set's authors ask to leave out, since their skeletons are missing or incomplete."""

from __future__ import annotations

import re
from pathlib import Path

from mfas_optuna.datasets.ntu import names
from mfas_optuna.errors import DataError

FILE = "missing_skeletons.txt"
"""A file of this name in the data folder adds to the authors' list, which is in this package under the same name."""

_STARTS_LIKE_A_NAME = re.compile(r"S\d")


def missing_skeletons(data_root: Path | None = None) -> frozenset[str]:
    """Return the names of the authors' list, and of that in the data folder when there is one.

    Raises:
        DataError: The list in the data folder cannot be read, or holds something that is not a name.
    """
    listed = _read(Path(__file__).with_name(FILE))
    if data_root is not None and (data_root / FILE).is_file():
        listed |= _read(data_root / FILE)
    return listed


def _read(file: Path) -> frozenset[str]:
    """Return the names of a list: any number a line; lines that do not start like a name are remarks."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error}). Mend or remove it.") from error
    found: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if _STARTS_LIKE_A_NAME.match(line) is None:
            continue
        for word in line.split():
            if names.parse(word) is None:
                raise DataError(
                    f"{file}, line {number}: expected a name like S001C002P003R002A013, found {word!r}. Mend or "
                    "remove it."
                )
            found.add(word)
    return frozenset(found)
