"""What a shell is offered for an option's value, found without importing torch or Optuna.

Whatever goes wrong, nothing is offered: a message would end up in the middle of what somebody types.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import typer

PATIENCE_S = 2
"""A database that does not answer is not waited for longer."""
FINAL_SUFFIX = "-final"
"""Studies of final trainings are none that `--name` can mean."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")

Offer = Callable[[typer.Context, str], list[str]]


def _offer(find: Callable[[typer.Context], Iterable[str]]) -> Offer:
    """Return what offers those of the found words that begin with what was typed."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [word for word in find(ctx) if word.startswith(incomplete)]
        except Exception:  # See above.
            return []

    return offer


def words(*known: str) -> Offer:
    """Return what offers words that are always the same."""
    return _offer(lambda ctx: known)


def _studies(ctx: typer.Context) -> Iterable[str]:
    from mfas_optuna.spec import study_files

    return study_files()


def _devices(ctx: typer.Context) -> Iterable[str]:
    n_devices = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return ["auto", "cpu", *(["cuda"] if n_devices else []), *(f"cuda:{index}" for index in range(n_devices))]


def _names(ctx: typer.Context) -> Iterable[str]:
    from mfas_optuna import spec as settings

    storage, study = ctx.params.get("storage"), ctx.params.get("study")
    url = storage or os.environ.get("MFAS_STORAGE")
    in_file = settings.load_spec(settings.find_study(study)) if study and not url else None
    names = _names_in(settings.storage_url(storage, in_file, settings.home_folder()))
    return sorted(name for name in names if not name.endswith(FINAL_SUFFIX))


def _names_in(url: str) -> list[str]:
    """Return the names of the studies in a database, which is not written."""
    query = "SELECT study_name FROM studies"
    scheme, _, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        path = Path(unquote(rest.removeprefix("/")))
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True, timeout=PATIENCE_S)
        try:
            return [str(row[0]) for row in connection.execute(query)]
        finally:
            connection.close()
    import psycopg

    with psycopg.connect(f"postgresql://{rest}", connect_timeout=PATIENCE_S) as reader:
        return [str(row[0]) for row in reader.execute(query)]


studies = _offer(_studies)
names = _offer(_names)
devices = _offer(_devices)
samplers = words("mfas", "random", "tpe")
modes = words("calibrated", "paper")
