from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import softcam.bundle
import softcam.data
import softcam.evaluation
import softcam.reporting
from softcam.cli import main
from softcam.evaluation import CHEAP_MEASURES, MEASURES, EvaluationSettings

Asked = dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the command asks of the library, which does nothing."""
    seen: Asked = {"counts": {"failed": 0, "failed_masks": 0}}

    def evaluate(model: Path, _manifest: object, **options: Any) -> Any:
        seen.update(options, model=model)
        return SimpleNamespace(metrics={"counts": seen["counts"]})

    config = SimpleNamespace(classes=("a", "b"))
    monkeypatch.setattr(softcam.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(softcam.evaluation, "write_evaluation", lambda *_: None)
    monkeypatch.setattr(softcam.reporting, "write_report", lambda _result, out: out / "report.html")
    monkeypatch.setattr(softcam.bundle, "find_bundle", lambda path: Path("found") / path)
    monkeypatch.setattr(softcam.bundle, "read_config", lambda _path: config)
    monkeypatch.setattr(softcam.data, "read_manifest", lambda path, classes: (path, classes))
    return seen


def run(tmp_path: Path, *flags: str) -> int:
    return main(["evaluate", "model", "--data", "data.csv", "--out", str(tmp_path), "--json", *flags])


def test_defaults(asked: Asked, tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    assert asked["model"] == Path("found/model")
    assert asked["settings"] == EvaluationSettings()
    assert asked["settings"].measures == CHEAP_MEASURES
    assert asked["others"] == {}
    assert asked["black_box_path"] is None
    assert asked["keep"] == tmp_path / "measured"


def test_every_flag_arrives(asked: Asked, tmp_path: Path) -> None:
    flags = (
        "--black-box twin --others sparse=runs/sparse deep=a=b --methods evidence grad_cam@layer4.1 "
        "--measures road irof --explained 7 --explained-class most_probable --explained-labels sick "
        "--explained-slowly 3 --engine openvino "
        "--margin 0.05 --seed 4 --split val"
    )
    assert run(tmp_path, *flags.split()) == 0
    assert asked["black_box_path"] == Path("found/twin")
    assert asked["others"] == {"sparse": Path("found/runs/sparse"), "deep": Path("found/a=b")}
    assert asked["settings"] == EvaluationSettings(
        methods=("evidence", "grad_cam@layer4.1"), measures=("road", "irof"), explained=7,
        explained_class="most_probable", explained_labels=("sick",),
        explained_slowly=3, engine="openvino", margin=0.05, seed=4, split="val",
    )  # fmt: skip


def test_all_measures(asked: Asked, tmp_path: Path) -> None:
    assert run(tmp_path, "--measures", "all") == 0
    assert asked["settings"].measures == MEASURES


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--others", "sparse"), "--others to be name=folder, but got 'sparse'"),
        (("--others", "=folder"), "--others to be name=folder, but got '=folder'"),
        (("--others", "sparse="), "--others to be name=folder, but got 'sparse='"),
        (("--others", "sparse=a", "sparse=b"), "--others to name each model once, but got 'sparse' twice"),
        (("--measures", "all", "road"), "`measures` to be among"),
        (("--engine", "onnx"), "`engine` to be among torch, openvino, but got 'onnx'"),
        (("--methods", "grad_cam@"), "a module's name after @"),
    ],
)
def test_wrong_flags_are_named(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert run(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err
    assert "settings" not in asked


@pytest.mark.parametrize("counts", [{"failed": 1, "failed_masks": 0}, {"failed": 0, "failed_masks": 1}])
def test_files_that_failed_show_in_the_exit_status(asked: Asked, tmp_path: Path, counts: dict[str, int]) -> None:
    asked["counts"] = counts
    assert run(tmp_path) == 1
