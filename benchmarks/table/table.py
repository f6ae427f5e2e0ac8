"""A table: the scores of every network of a closed space, several trainings each, as a small file.

Shapes: N networks, in the order of their index in the space; S seeds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfas_optuna import SearchSpace

VERSION = 1
FOLDER = Path(__file__).parent / "data"


class TableError(Exception):
    """A table cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Table:
    """What is known of every network of a space.

    Attributes:
        name: Its name.
        space: The networks; row i is `space.architecture(i)`.
        hits_NS: Validation samples classified rightly, (N, S), by the epoch that the study keeps.
        second_hits_NS: Samples of the second validation split classified rightly in that epoch, (N, S).
        n_rows: Samples of each of the two splits.
        parameters_N: Parameters of each network, fusion layers and head, (N,).
        card: How it was made, as JSON values.
    """

    name: str
    space: SearchSpace
    hits_NS: NDArray[np.int32]
    second_hits_NS: NDArray[np.int32]
    n_rows: int
    parameters_N: NDArray[np.int64]
    card: dict[str, Any]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Validation accuracy, (N, S)."""
        return np.asarray(self.hits_NS / self.n_rows)

    @property
    def second_scores(self) -> NDArray[np.float64]:
        """Accuracy on the second validation split, (N, S)."""
        return np.asarray(self.second_hits_NS / self.n_rows)

    def check_space(self, space: SearchSpace) -> None:
        """Refuse a space that is not the table's.

        Raises:
            TableError: It is another; the message shows both.
        """
        if space != self.space:
            raise TableError(
                f"The table {self.name!r} has {self.space}, the sampler searches {space}. Give it table.space."
            )

    def separation(self) -> float:
        """Return by how much the networks of the best tenth differ, in units of the seed noise of one training.

        The variance of their mean scores, less what the noise contributes to it, against the variance between the
        trainings of one network; both as deviations.
        """
        scores_NS = self.scores
        n_best = max(2, len(scores_NS) // 10)
        best = scores_NS[np.argsort(-scores_NS.mean(axis=1), kind="stable")[:n_best]]
        noise = float(best.var(axis=1, ddof=1).mean())
        between = float(best.mean(axis=1).var(ddof=1)) - noise / best.shape[1]
        return float(np.sqrt(max(0.0, between) / noise)) if noise > 0 else float("inf")

    def save(self, folder: Path = FOLDER) -> Path:
        """Write the table into a folder and return the file."""
        space = {"modalities": dict(self.space.modalities), "activations": self.space.activations}
        head = {"version": VERSION, "name": self.name, "space": {**space, "max_depth": self.space.max_depth}}
        text = json.dumps({**head, "n_rows": self.n_rows, "card": self.card})
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}.npz"
        np.savez_compressed(
            file,
            about=np.frombuffer(text.encode(), dtype=np.uint8),
            hits=self.hits_NS.astype(np.int32),
            second_hits=self.second_hits_NS.astype(np.int32),
            parameters=self.parameters_N.astype(np.int64),
        )
        return file


def load(name: str, folder: Path = FOLDER) -> Table:
    """Read a stored table.

    Raises:
        TableError: There is none of this name, it is damaged, or it has another version.
    """
    file = folder / f"{name}.npz"
    again = f"Make it again with `python -m benchmarks.table build {name}`."
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about.get("version") != VERSION:
                raise TableError(
                    f"{file}: expected a table of version {VERSION}, found {about.get('version')}. {again}"
                )
            hits_NS, second_hits_NS, parameters_N = arrays["hits"], arrays["second_hits"], arrays["parameters"]
            space = SearchSpace(**about["space"])
            n_rows, card = int(about["n_rows"]), about["card"]
    except FileNotFoundError:
        stored = ", ".join(sorted(path.stem for path in folder.glob("*.npz"))) or "none"
        raise TableError(f"{file}: no such table; stored are: {stored}.") from None
    except TableError:
        raise
    except Exception as error:  # What a damaged archive raises is not documented.
        raise TableError(f"{file}: not a whole table ({error}). {again}") from error
    if hits_NS.shape != second_hits_NS.shape or len(hits_NS) != space.size or len(parameters_N) != space.size:
        raise TableError(f"{file}: expected {space.size} networks, found {hits_NS.shape} scores. {again}")
    return Table(name, space, hits_NS, second_hits_NS, n_rows, parameters_N, card)
