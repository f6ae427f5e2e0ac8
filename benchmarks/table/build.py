"""Train every network of a table: fresh weights, cached features, many networks at once, several seeds."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.table.landscapes import Landscape
from benchmarks.table.table import Table
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.prepare import Preparation, Prepared
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.training.brief import BriefData, Member, train_jointly

GROUP = 31
"""Networks trained at once: they see the same batches; another group and another seed see others."""


class _SecondScore:
    """Scores one network on the second split after each epoch."""

    def __init__(self, network: FusionNetwork, reads: list[list[tuple[slice, ...]]], second: BriefData) -> None:
        self._network = network
        self._reads = reads
        self._second = second
        self.hits: list[int] = []

    @torch.inference_mode()
    def __call__(self, epoch: int, score: float) -> None:
        """Score the network, whose weights are those of the epoch's end."""
        rows_NF, labels_N = self._second.validation_NF, self._second.validation_labels
        inputs = [torch.cat([rows_NF[:, part] for (part,) in parts], dim=1) for parts in self._reads]
        self.hits.append(int((self._network(inputs).argmax(dim=1) == labels_N).sum()))


class _Trainer:
    """Trains groups of one landscape; one in each process."""

    def __init__(self, landscape: Landscape, prepared: Prepared) -> None:
        torch.set_num_threads(1)
        self._landscape = landscape
        self._spec = landscape.spec()
        self._space = landscape.space()
        features = prepared.features
        both = BriefData.load(features, standardize=self._spec.training.standardize, device=torch.device("cpu"))
        n = len(both.validation_labels) // 2
        self._n_outputs, self._widths = features.target.n_outputs, features.layout.widths(self._space)
        self._first = replace(both, validation_NF=both.validation_NF[:n], validation_labels=both.validation_labels[:n])
        self._second = replace(both, validation_NF=both.validation_NF[n:], validation_labels=both.validation_labels[n:])

    @property
    def n_rows(self) -> int:
        """Samples of each split."""
        return len(self._first.validation_labels)

    def train(self, indices: list[int], seed: int) -> list[tuple[int, int]]:
        """Return for each network its hits on both splits."""
        members, seconds = [], []
        for index in indices:
            architecture = self._space.architecture(index)
            generator = torch.Generator().manual_seed(seed_from("table", seed, index))
            network = self.network(index, generator)
            second = _SecondScore(network, self._first.reads(architecture, self._space), self._second)
            members.append(Member(network, architecture, generator, second))
            seconds.append(second)
        order = torch.Generator().manual_seed(seed_from("table rows", seed, indices[0]))
        outcomes = train_jointly(members, self._first, self._space, self._spec.training, order=order)
        hits = []
        for outcome, second in zip(outcomes, seconds, strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            hits.append((round(outcome.score * self.n_rows), second.hits[outcome.best_epoch]))
        return hits

    def network(self, index: int, generator: torch.Generator) -> FusionNetwork:
        """Return a fresh network."""
        fusion = self._spec.fusion
        assert fusion.fixed_width is not None
        return FusionNetwork(
            self._space.architecture(index),
            self._widths,
            self._space.activations,
            width=fusion.fixed_width,
            n_outputs=self._n_outputs,
            dropout=fusion.dropout,
            generator=generator,
        )


_trainer: _Trainer | None = None


def _start(landscape: Landscape, prepared: Prepared) -> None:
    global _trainer
    _trainer = _Trainer(landscape, prepared)


def _train(group: tuple[list[int], int]) -> list[tuple[int, int]]:
    if _trainer is None:
        raise AssertionError("unreachable")
    return _trainer.train(*group)


def build(
    landscape: Landscape,
    *,
    home: Path,
    data_root: Path | None,
    n_processes: int | None = None,
    n_seeds: int | None = None,
) -> Table:
    """Prepare the data, backbones and features where they are missing, train every network, and return the table.

    Args:
        landscape: What to make.
        home: Where data, backbones and features are kept.
        data_root: Folder of raw data.
        n_processes: Processes, one thread each; None: one for each core.
        n_seeds: Trainings of each network; None: as the landscape says.
    """
    spec, space = landscape.spec(), landscape.space()
    seeds = n_seeds or landscape.n_seeds
    preparation = Preparation(
        spec,
        home=home,
        data_root=data_root,
        device=torch.device("cpu"),
        rebuild_command=f"python -m benchmarks.table build {landscape.name}",
        say=lambda text: print(text, flush=True),
    )
    prepared = preparation.run()
    groups = [
        (list(range(first, min(first + GROUP, space.size))), seed)
        for seed in range(seeds)
        for first in range(0, space.size, GROUP)
    ]
    hits = np.zeros((2, space.size, seeds), dtype=np.int32)
    started = time.perf_counter()
    with ProcessPoolExecutor(
        n_processes or os.cpu_count(), get_context("spawn"), initializer=_start, initargs=(landscape, prepared)
    ) as pool:
        for done, ((indices, seed), found) in enumerate(zip(groups, pool.map(_train, groups), strict=True), start=1):
            hits[:, indices, seed] = np.array(found).T
            if done % 20 == 0:
                seconds = time.perf_counter() - started
                print(f"  {done}/{len(groups)} groups, {seconds / done * (len(groups) - done):.0f} s left", flush=True)
    trainer = _Trainer(landscape, prepared)
    parameters = [
        sum(parameter.numel() for parameter in trainer.network(index, torch.Generator().manual_seed(0)).parameters())
        for index in range(space.size)
    ]
    card = _card(landscape, prepared, seeds, time.perf_counter() - started)
    return Table(landscape.name, space, hits[0], hits[1], trainer.n_rows, np.array(parameters), card)


def _card(landscape: Landscape, prepared: Prepared, n_seeds: int, seconds: float) -> dict[str, Any]:
    spec = landscape.spec()
    return {
        "what": landscape.what,
        "study": landscape.study,
        "settings": {key: spec.scientific()[key] for key in ("dataset", "backbones", "fusion", "training")},
        "data": prepared.card,
        "backbones": {modality: trained.as_record() for modality, trained in prepared.backbones.items()},
        "features": prepared.fingerprint,
        "weights": "fresh for every training; nothing is shared",
        "splits": "half of the validation pairs gives the score and chooses the epoch, the other half the second score",
        "n_seeds": n_seeds,
        "group": GROUP,
        "made": date.today().isoformat(),
        "training_s": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }
