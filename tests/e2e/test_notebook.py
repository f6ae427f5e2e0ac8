"""The notebook of the quick start runs from the first cell to the last, and is kept as it ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import TINY
from .test_final import FINAL

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def _shown(notebook: Any) -> list[set[str]]:
    """Return for each cell of code what it shows."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {"text": None})}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_quick_start_runs(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a smaller study of the same name."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "digits.toml").write_text(TINY + FINAL, encoding="utf-8")
    for name in ("MFAS_HOME", "MFAS_STORAGE", "MFAS_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # Of the kernel's own packages.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    kept = _shown(notebook)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert _shown(notebook) == kept
    assert "Content-Security-Policy" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "fused" / "model.py").is_file()


def test_the_quick_start_is_kept_as_it_ran(notebook: Any) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert "image/svg+xml" in set.union(*_shown(notebook))
