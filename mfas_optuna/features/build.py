"""From trained backbones and data to a feature cache: every sample once, going on where an interrupted run stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import Dataset
from mfas_optuna.errors import DataError, HomeError, MfasError
from mfas_optuna.features.batch_size import choose_batch_size
from mfas_optuna.features.cache import write_features
from mfas_optuna.features.extract import extract_rows, tap_widths
from mfas_optuna.features.partial import CHECKPOINT_S, PartialFeatures
from mfas_optuna.progress import Progress, silent

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where the features of a modality come from.

    Attributes:
        model: A trained network on the device.
        taps: What to read, in the order of the columns.
    """

    model: nn.Module
    taps: Sequence[Tap]


def build_features(
    folder: Path,
    dataset: Dataset,
    sources: Mapping[str, Source],
    *,
    key: Mapping[str, Any],
    device: torch.device,
    progress: Progress = silent,
    say: Callable[[str], None] = _log.info,
    checkpoint_s: float = CHECKPOINT_S,
) -> None:
    """Extract the features of every split and write them to a folder.

    What is extracted lies beside it, in `.partial-NAME`, until it is complete. An interrupted extraction of the same
    key goes on from there, with the batch sizes that it was begun with. One process at a time may build a folder.

    Args:
        folder: Where to; a feature set that lies there already stays until the new one takes its place.
        dataset: The data.
        sources: Network and taps of each modality, in the order of the columns.
        key: What the features follow from: `open_features` compares it.
        device: Where the networks are.
        progress: Told how far each modality of each split is.
        say: Told when it goes on from earlier, and when rows are kept as float32.
        checkpoint_s: Seconds of work that a kill may cost, and the rows of one batch or `ROWS_AT_ONCE`.

    Raises:
        DataError: A feature is NaN or infinite.
        HomeError: The folder cannot be written.
        TapError: A tap does not exist or cannot be pooled.
    """
    train = dataset.splits["train"].inputs
    widths = {
        modality: tap_widths(source.model, source.taps, train[modality], device=device)
        for modality, source in sources.items()
    }
    # Another device or version may round otherwise, and rows of one split should all be rounded alike.
    origin = {
        "key": key,
        "device": device.type,
        "torch": str(torch.__version__),
        "taps": {modality: [tap.name for tap in source.taps] for modality, source in sources.items()},
    }
    try:
        partial = PartialFeatures(
            folder.with_name(f".partial-{folder.name}"),
            origin=origin,
            widths={modality: sum(of_taps) for modality, of_taps in widths.items()},
            checkpoint_s=checkpoint_s,
        )
        if partial.n_rows:
            n_all = sum(len(split) for split in dataset.splits.values()) * len(sources)
            say(f"Features: an earlier extraction was interrupted; going on after {partial.n_rows} of {n_all} rows")
        for modality, source in sources.items():
            _extract_modality(partial, dataset, modality, source, device, progress)
        try:
            write_features(
                folder,
                key=key,
                card=dataset.card,
                matrices={name: [partial.rows(name, modality) for modality in sources] for name in dataset.splits},
                labels={name: split.labels for name, split in dataset.splits.items()},
                widths={
                    modality: {tap.name: width for tap, width in zip(source.taps, widths[modality], strict=True)}
                    for modality, source in sources.items()
                },
                target=dataset.target,
                stand_in=dataset.stand_in,
                extraction={"batch_sizes": partial.batch_sizes, "device": device.type, "torch": str(torch.__version__)},
                say=say,
            )
        except DataError:
            # Going on from rows that are no numbers would end the same way.
            partial.discard()
            raise
        partial.discard()
    except OSError as error:
        # A closed terminal is no fault of the disk.
        if isinstance(error, (MfasError, BrokenPipeError)):
            raise
        raise HomeError(
            f"{folder.parent}: cannot be written: {error.strerror}. Free space or set MFAS_HOME."
        ) from error


def _extract_modality(
    partial: PartialFeatures,
    dataset: Dataset,
    modality: str,
    source: Source,
    device: torch.device,
    progress: Progress,
) -> None:
    if modality not in partial.batch_sizes:
        partial.batch_sizes[modality] = choose_batch_size(
            source.model,
            source.taps,
            dataset.splits["train"].inputs[modality],
            n_samples=sum(len(split) for split in dataset.splits.values()),
            device=device,
        )
    for name, split in dataset.splits.items():
        done = partial.n_done(name, modality)
        if done == len(split):
            continue
        with partial.appending(name, modality) as append:
            extract_rows(
                source.model,
                source.taps,
                split.inputs[modality],
                batch_size=partial.batch_sizes[modality],
                device=device,
                take=append,
                first_row=done,
                what=f"{modality} features, {name}",
                progress=progress,
            )
