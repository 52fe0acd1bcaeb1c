from __future__ import annotations

import dataclasses
import json

import pytest

from softcam.nn.report import ConversionReport


@pytest.fixture
def report() -> ConversionReport:
    return ConversionReport(
        head="linear",
        exact=True,
        error=2.5e-7,
        channels=512,
        num_classes=3,
        layout="NCHW",
        input_size=(224, 160),
        grid=(7, 5),
        map_stride=(32, 31),
        receptive_field=(211, 160),
        dropout=0.2,
        notes=("first", "second"),
    )


def test_json_round_trip(report: ConversionReport) -> None:
    restored = ConversionReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert restored == report


def test_to_dict_holds_every_field_as_json_values(report: ConversionReport) -> None:
    values = report.to_dict()
    assert list(values) == [field.name for field in dataclasses.fields(ConversionReport)]
    assert values["grid"] == [7, 5]
    assert values["notes"] == ["first", "second"]


def test_an_unknown_key_is_refused(report: ConversionReport) -> None:
    with pytest.raises(ValueError, match=r"unknown \['colour', 'size'\]"):
        ConversionReport.from_dict({**report.to_dict(), "size": 3, "colour": "red"})


@pytest.mark.parametrize("missing", ["head", "exact", "error", "grid", "receptive_field"])
def test_a_missing_key_is_refused(report: ConversionReport, missing: str) -> None:
    values = report.to_dict()
    del values[missing]
    with pytest.raises(ValueError, match=f"Expected all keys of a conversion report, but .*{missing}"):
        ConversionReport.from_dict(values)


def test_keys_with_a_default_may_be_missing(report: ConversionReport) -> None:
    values = report.to_dict()
    del values["dropout"], values["notes"]
    assert ConversionReport.from_dict(values) == dataclasses.replace(report, dropout=0.0, notes=())


def test_text_says_what_was_found(report: ConversionReport) -> None:
    assert str(report).splitlines() == [
        "head            linear (exact; largest relative error 2.5e-07)",
        "classes         3 from 512 channels (NCHW)",
        "evidence maps   7x5 cells at 224x160 px",
        "map stride      32x31 px",
        "a cell sees     211x160 px (measured at this input size)",
        "note            first",
        "note            second",
    ]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ((267, 267), "267x267 px by its layers"),
        ((None, None), "all of an image of any size, through a global step"),
    ],
)
def test_text_tells_what_layers_allow(report: ConversionReport, field: tuple[int | None, ...], words: str) -> None:
    bounded = dataclasses.replace(report, theoretical_receptive_field=field)
    line = f"a cell sees     211x160 px (measured at this input size); {words}"
    assert line in str(bounded).splitlines()
    assert ConversionReport.from_dict(json.loads(json.dumps(bounded.to_dict()))) == bounded


def test_text_of_a_new_layer(report: ConversionReport) -> None:
    fresh = dataclasses.replace(report, exact=False, error=None, notes=())
    assert str(fresh).splitlines()[0] == "head            linear (not exact; new, to be trained)"
    assert "note" not in str(fresh)


def test_text_of_finer_maps_says_how_far_the_logits_went(report: ConversionReport) -> None:
    finer = dataclasses.replace(report, exact=False, drift=0.0967)
    expected = "head            linear (not exact; largest relative error 2.5e-07; logits drift by 0.097 of their size)"
    assert str(finer).splitlines()[0] == expected
