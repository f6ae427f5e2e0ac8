"""Running a Python file of the user, and what it says when it fails."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mfas_optuna.errors import PythonFileError

if TYPE_CHECKING:
    from torch import nn

_loaded: dict[Path, tuple[int, ModuleType]] = {}
"""Each file that was run, with its time of change then."""


def load(path: Path) -> ModuleType:
    """Run a Python file and return it as a module; once for each time that it was changed.

    It can import files beside it: `import x` at its top, `from . import x` anywhere. What it imports from there by the
    first form is forgotten by the interpreter afterwards: two folders may have files of the same name.

    Raises:
        PythonFileError: There is no such file, it cannot be read, or it raised.
    """
    path = path.absolute()
    try:
        changed = path.stat().st_mtime_ns
        source = path.read_bytes()
    except FileNotFoundError as error:
        raise PythonFileError(f"{path}: expected a Python file, found none. Mend the path, or write it.") from error
    except OSError as error:
        raise PythonFileError(f"{path}: cannot be read: {error.strerror}. Mend its permissions.") from error
    if path not in _loaded or _loaded[path][0] != changed:
        _loaded[path] = (changed, _run(path, source))
    return _loaded[path][1]


def member(path: Path, name: str) -> Any:
    """Return what a Python file defines under a name; the file is run when it was not.

    Raises:
        PythonFileError: `load` fails, or there is no such name.
    """
    module = load(path)
    if hasattr(module, name):
        return getattr(module, name)
    names = [own for own in vars(module) if not own.startswith("_")]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    hint = f" Did you mean {' or '.join(repr(other) for other in near)}?" if near else ""
    raise PythonFileError(f"{path}: expected it to define {name!r}, found no such name.{hint}")


def call(path: Path, name: str, *arguments: Any) -> Any:
    """Call a function or class that a Python file defines and return the result.

    Raises:
        PythonFileError: `member` fails, what is named cannot be called, or the call raised.
    """
    function = member(path, name)
    if not callable(function):
        raise PythonFileError(
            f"{path}: expected {name!r} to be a function or class, found {type(function).__name__}. Name a function."
        )
    with reporting(path, f"{name}()"):
        return function(*arguments)


def network(path: Path, name: str) -> nn.Module:
    """Call a function or class that a Python file defines and return the network that it gives.

    Raises:
        PythonFileError: `call` fails, or gives something else.
    """
    from torch import nn

    model = call(path, name)
    if not isinstance(model, nn.Module):
        raise PythonFileError(
            f"{path}: expected {name}() to return a torch.nn.Module, found {type(model).__name__}. Return the network."
        )
    return model


@contextlib.contextmanager
def reporting(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a Python file's code raises in this context into an error that says where.

    Args:
        path: The file.
        what: What was done, for the message.

    Raises:
        PythonFileError: The code raised; the message has the file's deepest line that led there, and the traceback's
            last.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # Whatever the user's code raises.
        raise _failure(path.absolute(), error, f", in {what}") from error


def _run(path: Path, source: bytes) -> ModuleType:
    # The folder is a package of a name that nothing else has, so that relative imports find what lies in it.
    folder = path.parent
    package = f"_mfas_user_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    before = set(sys.modules)
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
    parent = ModuleType(package)
    parent.__path__ = [str(folder)]
    spec = importlib.util.spec_from_file_location(f"{package}.{path.stem}", path)
    if spec is None:
        raise PythonFileError(f"{path}: expected a file that ends in .py. Rename it.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = parent
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(folder))
    try:
        # Compiled here, as Python's own cache cannot tell two versions of one second apart.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # Whatever the user's code raises.
        raise _failure(path, error) from error
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if not name.startswith(package) and _lies_in(sys.modules[name], folder):
                del sys.modules[name]
    return module


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).absolute().is_relative_to(folder)


def _failure(path: Path, error: BaseException, what: str = "") -> PythonFileError:
    """Return the error with the last line of its traceback, and the deepest line of the file that led there."""
    last = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename is not None:
        return PythonFileError(f"{error.filename}, line {error.lineno}: {last}. Mend the file.")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    return PythonFileError(f"{where}{what}: it raised {last}. Mend the file.")
