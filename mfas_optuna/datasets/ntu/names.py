"""What the names of NTU RGB+D say of a sample: `SsssCcccPpppRrrrAaaa`, and which samples train, validate and test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Protocol = Literal["search", "cross_subject", "cross_view"]
Split = Literal["train", "validation", "test"]

SKELETON_ENDING = ".skeleton"
VIDEO_ENDING = "_rgb.avi"

SEARCH_SUBJECTS = (1, 4, 8, 13, 15, 17, 19)
"""Subjects that train during the search. Source: MFAS, section 4.3."""
VALIDATION_SUBJECTS = (2, 5, 9, 14)
"""Subjects that validate. Source: MFAS, section 4.3."""
TRAINING_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
"""Subjects that the data set's authors train on; all others test."""
_TRAINING_CAMERAS, _TEST_CAMERA = (2, 3), 1

_LAST_SETUP, _LAST_SUBJECT, _LAST_ACTION = 17, 40, 60

_PATTERN = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)


class Name(NamedTuple):
    """The parts of a sample's name, all from 1."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    def __str__(self) -> str:
        return f"S{self.setup:03}C{self.camera:03}P{self.subject:03}R{self.replication:03}A{self.action:03}"

    @property
    def is_of_ntu_60(self) -> bool:
        """Whether the data set has such a setup, subject and action; those beyond are of NTU RGB+D 120."""
        return self.setup <= _LAST_SETUP and self.subject <= _LAST_SUBJECT and self.action <= _LAST_ACTION


def parse(text: str) -> Name | None:
    """Return the parts of a name; None when it is not one."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    name = Name(*map(int, match.groups()))
    return name if min(name) > 0 else None


def sample_of(file_name: str) -> str:
    """Return the sample's name of a file's name: what comes before the ending that tells the modality."""
    return file_name.removesuffix(VIDEO_ENDING).removesuffix(SKELETON_ENDING)


def split_of(name: Name, protocol: Protocol) -> Split | None:
    """Return the split that a sample is in; None when the protocol leaves it out."""
    validates = name.subject in VALIDATION_SUBJECTS
    if protocol == "cross_view":
        if name.camera == _TEST_CAMERA:
            return "test"
        if name.camera not in _TRAINING_CAMERAS:
            return None
        return "validation" if validates else "train"
    if validates:
        return "validation"
    training: Sequence[int] = SEARCH_SUBJECTS if protocol == "search" else TRAINING_SUBJECTS
    if name.subject in training:
        return "train"
    return None if name.subject in TRAINING_SUBJECTS else "test"
