from __future__ import annotations

import pytest
from torch import nn

from softcam.evaluation.entries import check_layers, list_entries, parse_method


def test_a_method_and_its_layer() -> None:
    method, layer = parse_method("layer_cam@stage.1")
    assert (method.name, layer) == ("layer_cam", "stage.1")
    assert parse_method("evidence")[1] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grad_cam@", "a module's name after @, but got 'grad_cam@'"),
        ("random@stage", "no layer for 'random', which looks at none, but got 'stage'"),
        ("evidence@stage", "no layer for 'evidence'"),
        ("gradcam@stage", "Did you mean 'grad_cam'"),
    ],
)
def test_what_is_no_method(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_method(text)


def test_own_maps_explain_every_softcam_and_the_others_the_black_box() -> None:
    entries = list_entries(
        ("evidence", "grad_cam@stage", "grad_cam", "evidence"), has_black_box=True, others=("sparse", "deep")
    )
    assert [(entry.name, entry.model, entry.layer) for entry in entries] == [
        ("evidence", "softcam", None),
        ("evidence:sparse", "sparse", None),
        ("evidence:deep", "deep", None),
        ("grad_cam@stage", "black_box", "stage"),
        ("grad_cam", "black_box", None),
    ]


def test_without_a_black_box_all_explain_the_softcam() -> None:
    entries = list_entries(("evidence", "grad_cam"), has_black_box=False)
    assert {entry.model for entry in entries} == {"softcam"}


def test_nothing_to_compare() -> None:
    assert list_entries((), has_black_box=True, others=("sparse",)) == ()


def test_layers_are_those_of_the_model_that_is_explained() -> None:
    networks = {
        "softcam": nn.Sequential(),
        "black_box": nn.ModuleDict({"stage": nn.Sequential(nn.Identity(), nn.Identity())}),
    }
    entries = list_entries(("evidence", "grad_cam", "grad_cam@stage.1"), has_black_box=True)
    check_layers(entries, networks)
    wrong = list_entries(("grad_cam@stage.2",), has_black_box=True)
    message = r"a module of the black_box model after @, but got 'grad_cam@stage\.2'\. Did you mean 'stage\.1'\?"
    with pytest.raises(ValueError, match=message):
        check_layers(wrong, networks)
    with pytest.raises(ValueError, match=r"of the softcam model .*named_modules"):
        check_layers(list_entries(("grad_cam@xyz",), has_black_box=False), networks)
