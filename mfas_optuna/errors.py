"""Every exception that mfas-optuna raises on purpose.

`MfasError` is the root. Each class also derives from the builtin that a caller would expect. A message says where,
what was expected, what was found and what to do next; values that a program may want are attributes too.
"""

from __future__ import annotations

from collections.abc import Sequence


class MfasError(Exception):
    """Root of all errors of this package.

    Attributes:
        exit_code: What the command line exits with: 2 for bad input, 1 for a run that failed.
    """

    exit_code = 2


class SpaceError(MfasError, ValueError):
    """A search space, an architecture or its notation is not valid."""


class SpecError(MfasError, ValueError):
    """A study file is malformed, mistyped or contradicts itself.

    Attributes:
        problems: One line for each problem found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class UnknownStudyError(MfasError, LookupError):
    """No study file has the given name."""


class SamplerError(MfasError, ValueError):
    """The sampler was given settings or a study that it cannot work with."""


class FusionShapeError(MfasError, ValueError):
    """A tensor's width differs from the one that a fusion layer was built for."""


class BudgetError(FusionShapeError):
    """A network has more weights and biases than its budget allows, whatever its width."""


class OutputShapeError(MfasError, ValueError):
    """A network's output is not what its target needs, one row of outputs for each sample.

    Attributes:
        expected: Samples and outputs of a batch.
        found: Shape of the network's output, or the name of its type.
    """

    def __init__(self, expected: Sequence[int], found: Sequence[int] | str, message: str) -> None:
        self.expected = tuple(expected)
        self.found = found if isinstance(found, str) else tuple(found)
        super().__init__(message)


class TapError(MfasError, LookupError):
    """A module to tap does not exist, or its output cannot be pooled."""


class WeightsError(MfasError, ValueError):
    """A file of weights cannot be read, or does not fit its network.

    Attributes:
        problems: One line for each kind of misfit, with all keys.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


class DataError(MfasError, ValueError):
    """Data are inconsistent: labels out of range, NaN, arrays of different length."""


class PythonFileError(DataError, ImportError):
    """A Python file of the user cannot be run, lacks what is named, or gave something else than was expected."""


class DataNotFoundError(MfasError, FileNotFoundError):
    """Raw data that a study needs are not where they were looked for."""


class CacheError(MfasError, RuntimeError):
    """A cached file (built data, features, backbone) is missing, damaged or belongs to other settings."""


class BlobError(MfasError, RuntimeError):
    """A weight blob is missing or does not match its digest.

    Attributes:
        digest: SHA-256 of the blob that was asked for.
    """

    def __init__(self, digest: str, message: str) -> None:
        self.digest = digest
        super().__init__(message)


class ExportError(MfasError, ValueError):
    """A network cannot be exported, or what is asked for as an exported model is none."""


class ExportCheckError(MfasError, RuntimeError):
    """What was exported does not compute what the study's network does.

    Attributes:
        difference: The largest one, over the larger of 1 and the largest output; None where it could not be run.
    """

    exit_code = 1

    def __init__(self, message: str, difference: float | None = None) -> None:
        self.difference = difference
        super().__init__(message)


class TrainingDiverged(MfasError, ArithmeticError):
    """A loss or a weight became NaN or infinite during training.

    Attributes:
        epoch: 0-based epoch in which it happened.
    """

    exit_code = 1

    def __init__(self, epoch: int, message: str) -> None:
        self.epoch = epoch
        super().__init__(message)


class StudyMismatchError(MfasError, ValueError):
    """A stored study was made with other scientific settings.

    Attributes:
        differences: One line for each field that differs.
    """

    def __init__(self, message: str, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(message)


class StorageError(MfasError, RuntimeError):
    """The study database cannot be opened, reached or written."""


class ReportFormatError(MfasError, ValueError):
    """The name of a report's file does not say what it is to be written as."""


class PictureError(MfasError, ValueError):
    """A picture cannot be made of what was given."""


class DashboardError(MfasError, ValueError):
    """The dashboard cannot be served where it was asked to, or must not be."""


class HomeError(MfasError, OSError):
    """The home folder (`MFAS_HOME`) cannot be created or written."""


class StoreError(MfasError, OSError):
    """The store of weights cannot be opened, reached, read or written."""


class SubmissionError(MfasError, RuntimeError):
    """A job script cannot be written, or was not taken."""


class DeviceError(MfasError, ValueError):
    """The asked-for device is not a valid name or is not on this machine."""


class SearchFailedError(MfasError, RuntimeError):
    """The search ended without a single finished trial."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop by a signal; everything was left in order.

    Attributes:
        exit_code: 128 plus the signal's number: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by signal {signal_number}")
