from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from softcam.evaluation import EvaluationResult
from softcam.imaging import scale_limit, signed_colors
from softcam.reporting.gallery import (
    case_views,
    coarsen,
    data_uri,
    describe_peak,
    runner_up,
    shared_scale,
    signed_layer,
)
from softcam.reporting.wording import MINUS


def _decode(uri: str) -> np.ndarray:
    head, _, payload = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(payload))))


def test_one_scale_for_all_margins(result: EvaluationResult) -> None:
    scale = shared_scale(result.gallery)
    assert scale.limit == pytest.approx(scale_limit(np.stack([case.margin for case in result.gallery]), quantile=0.98))
    assert [position for position, _ in scale.ticks] == [0, 25, 50, 75, 100]
    assert scale.ticks[2][1] == "0.0"
    assert scale.ticks[0][1].startswith(MINUS)
    ends = signed_colors(np.array([[-1.0, 1.0]]), 1.0)[0]
    assert scale.stops[0][1] == "#{:02x}{:02x}{:02x}".format(*ends[0])
    assert scale.stops[-1][1] == "#{:02x}{:02x}{:02x}".format(*ends[1])
    assert shared_scale(()).limit == 1.0


def test_layer_shows_sign_by_colour_and_size_by_opacity() -> None:
    layer = signed_layer(np.array([[-2.0, 0.0, 1.0, 2.0, 9.0]]), 2.0)
    assert layer.shape == (1, 5, 4)
    alpha = layer[0, :, 3].astype(int)
    assert alpha[1] == 0
    assert alpha[0] == alpha[3] == alpha[4]
    assert alpha[2] == pytest.approx(alpha[3] / 2, abs=1)
    assert (layer[..., :3] == signed_colors(np.array([[-2.0, 0.0, 1.0, 2.0, 9.0]]), 2.0)).all()


def test_equal_evidence_has_equal_colour_in_every_case(result: EvaluationResult) -> None:
    scale = shared_scale(result.gallery)
    for case, view in zip(result.gallery, case_views(result.gallery, scale), strict=True):
        assert (_decode(view.margin.uri) == signed_layer(case.margin, scale.limit)).all()
        assert (_decode(view.photo) == case.pixels).all()


def test_account_adds_up(result: EvaluationResult) -> None:
    case = result.gallery[0]
    account = case_views(result.gallery, shared_scale(result.gallery))[0].account
    values = [float(text.replace(MINUS, "-")) for text in (account.positive, account.negative, account.total)]
    assert values[0] + values[1] == pytest.approx(values[2], abs=0.011)
    assert values[2] == pytest.approx(float(case.logits[1] - case.logits[0]), abs=0.006)
    assert (account.target, account.against, account.cells) == ("defect", "intact", 9)
    assert max(account.share_positive, account.share_negative) == pytest.approx(100)


def test_cells_carry_their_value_and_share(result: EvaluationResult) -> None:
    margin = np.diag([9.0, -0.9, 0.0]).astype(np.float32)
    case = replace(result.gallery[0], margin=margin)
    (view,) = case_views([case], shared_scale([case]))
    assert view.cells[0].note == "row 1, column 1: +9.00 logits (adds +1.000 to the sum)"
    assert view.cells[4].note == f"row 2, column 2: {MINUS}0.90 logits (adds {MINUS}0.100 to the sum)"
    assert (view.cells[4].x, view.cells[4].y) == (33.333, 33.333)
    fine = replace(case, margin=np.zeros((21, 21), dtype=np.float32))
    assert case_views([fine], shared_scale([case]))[0].cells == ()


def test_runner_up_is_the_strongest_other_class(result: EvaluationResult) -> None:
    case = replace(
        result.gallery[0], classes=("a", "b", "c"), logits=np.array([0.5, 2.0, 1.0], dtype=np.float32), predicted="b"
    )
    assert runner_up(case) == 2
    # A threshold may report a class that is not the strongest.
    assert runner_up(replace(case, predicted="a")) == 1
    assert runner_up(replace(case, classes=("a",), logits=np.array([1.0], dtype=np.float32), predicted="a")) == 0


def test_of_many_classes_the_strongest_are_shown(result: EvaluationResult) -> None:
    names = tuple(f"c{index}" for index in range(9))
    logits = np.arange(9, dtype=np.float32)
    case = replace(
        result.gallery[0], classes=names, logits=logits, probabilities=logits / 36, predicted="c8", label="c7",
        maps=np.zeros((9, 3, 3), dtype=np.float32),
    )  # fmt: skip
    (view,) = case_views([case], shared_scale([case]))
    assert [layer.title for layer in view.classes] == ["c8", "c7", "c6", "c5", "c4", "c3"]
    assert [score.name for score in view.scores] == ["c8", "c7", "c6", "c5", "c4", "c3"]
    assert [score.predicted for score in view.scores] == [True] + [False] * 5
    assert [score.true for score in view.scores] == [False, True] + [False] * 4


def test_grey_photographs_are_stored_once(result: EvaluationResult) -> None:
    grey = np.repeat(result.gallery[0].pixels[..., :1], 3, axis=2)
    case = replace(result.gallery[0], pixels=grey)
    (view,) = case_views([case], shared_scale([case]))
    assert (_decode(view.photo) == grey[..., 0]).all()


def test_peers_keep_their_own_scale(result: EvaluationResult) -> None:
    case = result.gallery[0]
    scaled = replace(case, peers={name: 1000 * values for name, values in case.peers.items()})
    scale = shared_scale([case])
    one, other = case_views([case], scale)[0], case_views([scaled], scale)[0]
    assert [layer.title for layer in one.peers] == ["Grad-CAM", "Random map"]
    difference = [
        np.abs(_decode(a.uri).astype(int) - _decode(b.uri)) for a, b in zip(one.peers, other.peers, strict=True)
    ]
    assert max(part.max() for part in difference) <= 1
    assert _decode(one.peers[1].uri).shape == (56, 56, 4)


def test_coarsen_averages_areas() -> None:
    values = np.arange(16.0).reshape(4, 4)
    assert coarsen(values, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert coarsen(values, 4) is values
    odd = coarsen(np.array([[1.0, 2.0, 6.0]]), 2)
    assert odd.tolist() == [[1.0, 4.0]]


def test_describe_peak_names_both_ends() -> None:
    text = describe_peak(np.array([[0.0, 2.0], [-1.0, 0.0]]))
    assert text == f"strongest for at row 1, column 2 (+2.00); strongest against at row 2, column 1 ({MINUS}1.00)"
    assert describe_peak(-np.ones((1, 1))) == f"strongest against at row 1, column 1 ({MINUS}1.00)"
    assert describe_peak(np.zeros((2, 2))) == "no evidence either way"


def test_data_uri_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 4), dtype=np.uint8)
    assert (_decode(data_uri(pixels)) == pixels).all()
