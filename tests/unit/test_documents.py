"""The programs that the documents show run, and print what the documents say."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from mfas_optuna import Architecture

from .search.helpers import places

ROOT = Path(__file__).parents[2]
_PROGRAM = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)
_NAME = re.compile(r"# (?P<name>\w+\.py)\n")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def run(document: str, **given: Any) -> dict[str, Any]:
    """Run a document's programs one after another in the working folder and return what they leave.

    One that begins with a file's name is written to that file too, and worker.py is not run here.
    """
    programs = list(_PROGRAM.finditer((ROOT / document).read_text(encoding="utf-8")))
    assert programs
    left = dict(given)
    for program in programs:
        code, name = program["code"], _NAME.match(program["code"])
        if name is not None:
            Path(name["name"]).write_text(code, encoding="utf-8")
        if name is None or name["name"] != "worker.py":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, document, "exec"), left)
            assert printed.getvalue() == (program["output"] or "")
    return left


def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def score(architecture: Architecture) -> float:
        return 0.2 * architecture.depth + 0.01 * sum(architecture.layers[0].features)

    left = run("README.md", score=score)
    assert len(left["study"].trials) == 180
    assert left["study"].best_value > score(left["space"].architecture(0))


def test_the_sampler_alone_and_two_workers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    left = run("docs/sampler.md")
    workers = [subprocess.Popen([sys.executable, "worker.py"]) for _ in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    study = optuna.load_study(study_name="fusion", storage="sqlite:///fusion.db", sampler=left["sampler"])
    taken = [place for place in places(study) if place[0] >= 0]
    assert len({network for *_, network, _ in taken}) == len(taken)
    scheduled = Counter((iteration, depth) for iteration, depth, *_ in taken)
    # A plain ask never waits: while the other worker is at the last network of a step, it takes one more.
    assert min(scheduled[0, depth] for depth in (1, 2, 3)) >= 6


def test_the_programme_that_draws_the_readmes_picture_finds_what_it_calls() -> None:
    spec = importlib.util.spec_from_file_location("make_picture", ROOT / "docs" / "make_picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.request_of("digits", name=None, storage=None).study_name == "digits"
    assert callable(module.output.print_outcome)
    patched = re.findall(r'patch\.object\(output, "(\w+)"', (ROOT / "docs" / "make_picture.py").read_text())
    assert patched
    assert all(callable(getattr(module.output, name)) for name in patched)


def _texts() -> list[str]:
    """Return every string of the package's source, with {} for what is filled in."""
    texts = []
    for file in (ROOT / "mfas_optuna").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_messages_that_are_explained_are_those_of_the_program() -> None:
    document = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [" ".join(text.split()) for bold in re.findall(r"^\*\*(.+?)\*\*", document, re.MULTILINE | re.DOTALL)
              for text in re.findall(r"`([^`]+)`", bold)]  # fmt: skip
    assert len(quoted) >= 15
    texts = _texts()
    assert [text for text in quoted if not any(text in of_source for of_source in texts)] == []


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "storage").glob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in documents
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        if not (document.parent / link).exists()
    ]
    assert broken == []


def test_the_reference_is_what_the_docstrings_say() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "make_api.py", "--check"], check=True)
