from __future__ import annotations

import math

import pytest

from softcam.training import Recipe
from softcam.training.schedule import Segment, learning_rate, plan_segments


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    segment = Segment(steps=10, peak=2.0, floor=0.0, warmup=4)
    assert [segment.rate(step) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_cosine_is_half_way_in_the_middle_and_ends_at_the_floor() -> None:
    segment = Segment(steps=10, peak=3.0, floor=1.0, warmup=0)
    assert segment.rate(0) == 3.0
    assert segment.rate(5) == pytest.approx(2.0)
    assert segment.rate(2) == pytest.approx(1 + 2 * (1 + math.cos(math.pi / 5)) / 2)
    assert segment.rate(10) == segment.rate(99) == pytest.approx(1.0)


def test_a_peak_below_the_floor_is_kept() -> None:
    assert {Segment(4, 0.1, 0.5, 0).rate(step) for step in range(6)} == {0.1}


def test_a_span_beyond_the_stage_ends_on_the_way() -> None:
    segment = Segment(steps=10, peak=2.0, floor=0.0, warmup=0, span=20)
    assert segment.rate(10) == segment.rate(99) == pytest.approx(1.0)
    assert Segment(steps=10, peak=2.0, floor=0.0, warmup=0, span=5).rate(7) == pytest.approx(0.0)


def test_a_stride_holds_the_rate_for_an_epoch() -> None:
    segment = Segment(steps=9, peak=3.0, floor=0.0, warmup=0, stride=3)
    smooth = Segment(steps=9, peak=3.0, floor=0.0, warmup=0)
    assert [segment.rate(step) for step in range(9)] == [smooth.rate(step // 3 * 3) for step in range(9)]


def test_the_cosine_is_cut_off_below() -> None:
    segment = Segment(steps=10, peak=1.0, floor=0.0, warmup=0, least=0.25)
    free = Segment(steps=10, peak=1.0, floor=0.0, warmup=0)
    assert [segment.rate(step) for step in range(12)] == [max(free.rate(step), 0.25) for step in range(12)]
    assert Segment(steps=10, peak=0.1, floor=0.0, warmup=0, least=0.25).rate(9) == 0.1


def test_the_plan_counts_spans_and_strides_in_steps() -> None:
    found = plan_segments(recipe(warmup_epochs=0, span=4, per_epoch=True, floor=0.1), 10)
    assert [(segment.span, segment.stride, segment.least) for segment in found] == [(40, 10, 0.1)] * 2
    assert plan_segments(recipe(), 10)[0].stride == 1


def recipe(**schedule: float) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "r",
            "optimizer": {"lr": 1.0},
            "schedule": schedule,
            "stages": [{"epochs": 2, "trunk": "a", "lr": 0.5}, {"epochs": 3}],
        }
    )


def test_each_stage_has_its_segment() -> None:
    first, second = plan_segments(recipe(warmup_epochs=0.5, min_lr=0.01), 10)
    assert first == Segment(steps=20, peak=0.5, floor=0.01, warmup=5)
    assert second == Segment(steps=30, peak=1.0, floor=0.01, warmup=5)


def test_a_warm_up_longer_than_the_stage_leaves_a_step() -> None:
    assert [segment.warmup for segment in plan_segments(recipe(warmup_epochs=99), 1)] == [1, 2]


def test_stages_follow_each_other_and_the_end_holds() -> None:
    segments = plan_segments(recipe(warmup_epochs=0, min_lr=0.01), 10)
    assert learning_rate(0, segments) == 0.5
    assert learning_rate(19, segments) == segments[0].rate(19)
    assert learning_rate(20, segments) == 1.0
    assert learning_rate(49, segments) == segments[1].rate(29)
    assert learning_rate(1000, segments) == pytest.approx(0.01)
