from __future__ import annotations

from typing import Any

import pytest

from softcam.attribution import METHODS, list_methods
from softcam.evaluation import EvaluationSettings


def test_defaults() -> None:
    settings = EvaluationSettings()
    assert settings.margin == 0.02
    assert settings.right == settings.wrong == 6


def test_default_methods_are_known_few_and_only_one_of_them_slow() -> None:
    methods = EvaluationSettings().methods
    assert set(methods) < set(list_methods())
    assert len(methods) == 9
    assert [name for name in methods if METHODS[name].cost == "many"] == ["integrated_gradients"]


@pytest.mark.parametrize(("size", "side"), [(512, 33), (224, 14), (64, 4), (1, 1)])
def test_patches_scale_with_the_input(size: int, side: int) -> None:
    assert EvaluationSettings().patch_side(size) == side
    assert EvaluationSettings(patch=9).patch_side(size) == 9


def test_windows_scale_with_the_input() -> None:
    assert EvaluationSettings(windows=(0.25, 0.5)).window_sides(64) == (16, 32)
    assert EvaluationSettings(windows=(0.001,)).window_sides(64) == (1,)


def test_lists_become_tuples() -> None:
    assert EvaluationSettings(points=[0, 3], fills=["blur"]).points == (0, 3)  # type: ignore[arg-type]
    given: dict[str, Any] = {
        "methods": ["random"], "measures": ["drop"], "explained_labels": ["sick"], "windows": [0.5],
        "points": [0, 1], "fills": ["blur"], "shares": [0.1], "gallery_methods": ["random"],
    }  # fmt: skip
    settings = EvaluationSettings(**given)
    assert {name: getattr(settings, name) for name in given} == {name: tuple(v) for name, v in given.items()}


def test_edges_of_the_ranges() -> None:
    settings = EvaluationSettings(samples=2, shares=(0.01, 0.99), methods=(), measures=(), fills=(), explained=0)
    assert settings.samples == 2
    assert EvaluationSettings(methods=("grad_cam@layer4", "grad_cam")).methods[0] == "grad_cam@layer4"
    assert EvaluationSettings(engine="openvino").engine == "openvino"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "`batch_size` to be at least 1, but got 0"),
        ({"resamples": 0}, "`resamples` to be at least 1"),
        ({"explained": -1}, "`explained` to be at least 0"),
        ({"explained_slowly": -1}, "`explained_slowly` to be at least 0"),
        ({"right": -1}, "`right` to be at least 0"),
        ({"wrong": -1}, "`wrong` to be at least 0"),
        ({"seed": -1}, "`seed` to be at least 0"),
        ({"margin": 0.0}, r"`margin` to be in \(0, 1\)"),
        ({"margin": 1.0}, r"`margin` to be in \(0, 1\)"),
        ({"located": -1}, "`located` to be at least 0"),
        ({"windows": ()}, r"`windows` to be shares in \(0, 1\), at least one"),
        ({"windows": (0.5, 1.0)}, "`windows` to be shares"),
        ({"tolerance": 0.0}, "`tolerance` to be above 0"),
        ({"patch": 0}, "`patch` to be at least 1 or None"),
        ({"points": (0,)}, "`points` to be increasing numbers from 0, at least two"),
        ({"points": (1, 2)}, "`points` to be increasing numbers from 0"),
        ({"points": (0, 2, 2)}, "`points` to be increasing numbers from 0"),
        ({"fills": ("grey",)}, "`fills` to be among .*blur.*, but got 'grey'"),
        ({"methods": ("gradcam",)}, "Did you mean 'grad_cam'"),
        ({"methods": ("grad_cam@",)}, "a module's name after @, but got 'grad_cam@'"),
        ({"methods": ("random@stage",)}, "no layer for 'random', which looks at none"),
        ({"methods": "evidence"}, "`methods` to be a list, but got 'evidence'"),
        ({"measures": "curves"}, "`measures` to be a list, but got 'curves'"),
        ({"measures": ("curve",)}, "`measures` to be among localization, curves, .*, but got 'curve'"),
        ({"shares": ()}, r"`shares` to be increasing shares in \(0, 1\), at least one, but got \(\)"),
        ({"shares": (0.5, 0.3)}, "`shares` to be increasing"),
        ({"shares": (0.5, 0.5)}, "`shares` to be increasing"),
        ({"shares": (0.0, 0.5)}, "`shares` to be increasing"),
        ({"shares": (0.5, 1.0)}, "`shares` to be increasing"),
        ({"samples": 1}, "`samples` to be at least 2, but got 1"),
        ({"engine": "onnx"}, "`engine` to be among torch, openvino, but got 'onnx'"),
        ({"explained_class": "label"}, "`explained_class` to be among reported, most_probable, but got 'label'"),
        ({"gallery_methods": ("gradcam",)}, "Did you mean 'grad_cam'"),
    ],
)
def test_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**changes)  # type: ignore[arg-type]
