"""The films of MM-IMDB, in whichever of its two layouts they are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mfas_optuna.datasets.mmimdb import hdf5, raw
from mfas_optuna.datasets.mmimdb.found import Found
from mfas_optuna.datasets.samples import Modality, Problem, Source
from mfas_optuna.datasets.stand_in import read_mark
from mfas_optuna.errors import DataNotFoundError
from mfas_optuna.spec import MmimdbSettings
from mfas_optuna.target import Target


def find(settings: MmimdbSettings, data_root: Path | None) -> Source:
    """Find the films of the data set in a folder.

    Args:
        settings: Which layout, the size of the posters, how plots become vectors.
        data_root: Folder of `multimodal_imdb.hdf5`, or of `dataset/` and `split.json`.

    Raises:
        DataError: The files contradict themselves or the settings.
        DataNotFoundError: No folder was named, or the files are not in it.
    """
    stand_in = read_mark(data_root) if data_root is not None else ""
    if data_root is not None and _layout(settings, data_root) == "hdf5":
        found = hdf5.look(settings, data_root)
    elif data_root is not None and _layout(settings, data_root) == "raw":
        found = raw.look(settings, data_root, only_occurring=bool(stand_in))
    else:
        where = "no folder was named" if data_root is None else f"{data_root} has neither"
        if data_root is not None and settings.source != "auto":
            where = f"{data_root} does not have what source = {settings.source!r} asks for"
        raise DataNotFoundError(
            f"mmimdb: expected {hdf5.FILE} (source hdf5), or {raw.FOLDER}/ and {raw.SPLIT_FILE} (source raw); "
            f"{where}. Name their folder with --data-root or MFAS_DATA; 'mfas-optuna data make mmimdb DIR' makes "
            "generated data in the same formats."
        )
    return Source(
        splits=found.splits,
        target=Target("multilabel", found.names),
        modalities={
            "image": Modality((3, settings.image_height, settings.image_width), "uint8", "image"),
            "text": Modality((settings.text_width,), "float32", "vector"),
        },
        read=found.read,
        facts=found.facts,
        card=found.card,
        problems=[*found.problems, *_absent(found)],
        stand_in=stand_in,
    )


def _layout(settings: MmimdbSettings, data_root: Path) -> str:
    there = {"hdf5": data_root / hdf5.FILE, "raw": data_root / raw.SPLIT_FILE}
    wanted = list(there) if settings.source == "auto" else [settings.source]
    return next((layout for layout in wanted if there[layout].is_file()), "")


def _absent(found: Found) -> Iterator[Problem]:
    for split, samples in found.splits.items():
        present = {index for sample in samples for index, value in enumerate(sample.label) if value}
        absent = [name for index, name in enumerate(found.names) if index not in present]
        if absent:
            is_training = split == "train"
            remedy = "Nothing can be learned of it." if is_training else "Scores there say nothing about it."
            yield Problem(f"{split} split", f"no film of {', '.join(absent)}.", remedy, is_error=is_training)
