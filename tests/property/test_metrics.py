"""What holds for every input: ranges, invariances and identities between metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from softcam.metrics import (
    Regions,
    activation_precision,
    activation_sensitivity,
    area_under_curve,
    auroc,
    average_drop,
    average_precision,
    bootstrap_interval,
    choose_threshold,
    classification_report,
    components,
    confidence_increase,
    deletion_curve,
    delong,
    entropy,
    gini,
    highlight,
    holm,
    infidelity,
    insertion_curve,
    iou,
    irof,
    localization_precision,
    near_zero_share,
    negative_share,
    paired_bootstrap,
    pixel_auroc,
    pixel_average_precision,
    pointing_game,
    positive_share,
    rank_accuracy,
    relative_drop,
    road,
    sensitivity_n,
    topk_precision,
)

FEW = settings(max_examples=40)

# Few distinct values: ties, zeros and constant maps come often.
CELLS = st.integers(-3, 3).map(float)
MAPS = arrays.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 5)), elements=CELLS)
PAIRS = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=CELLS),
        arrays.arrays(np.float64, n, elements=CELLS),
        arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)
VALUES = arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(-10, 10) | st.just(math.nan))


def within(values: Tensor, low: float, high: float) -> bool:
    defined = values[~values.isnan()]
    return bool(((defined >= low - 1e-12) & (defined <= high + 1e-12)).all())


@FEW
@given(PAIRS)
def test_auroc_mirrors_and_knows_order_only(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, _, targets = sample
    value = auroc(scores, targets)
    assert math.isnan(value) == (targets.min() == targets.max())
    assert math.isnan(value) or 0 <= value <= 1
    assert auroc(-scores, targets) == pytest.approx(1 - value, nan_ok=True)
    assert auroc(scores, 1 - targets) == pytest.approx(1 - value, nan_ok=True)
    assert auroc(np.exp(scores), targets) == pytest.approx(value, nan_ok=True)


@FEW
@given(PAIRS)
def test_average_precision_is_at_least_that_of_the_worst_order(
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores, _, targets = sample
    value, negatives = average_precision(scores, targets), int((targets == 0).sum())
    # At worst all negatives come first and the positives one by one.
    worst = [found / (negatives + found) for found in range(1, int(targets.sum()) + 1)]
    assert math.isnan(value) == (not worst)
    assert math.isnan(value) or sum(worst) / len(worst) - 1e-12 <= value <= 1


@FEW
@given(PAIRS)
def test_delong_agrees_with_auroc_and_mirrors(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    a, b, targets = sample
    forward, backward = delong(targets, a, b), delong(targets, b, a)
    assert forward.auroc_a == pytest.approx(auroc(a, targets), nan_ok=True)
    assert forward.auroc_b == pytest.approx(auroc(b, targets), nan_ok=True)
    assert forward.difference == pytest.approx(-backward.difference, nan_ok=True)
    assert forward.standard_error == pytest.approx(backward.standard_error, nan_ok=True)


@FEW
@given(PAIRS)
def test_threshold_is_no_worse_than_any_score(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, _, targets = sample
    assume(targets.min() < targets.max())

    def youden(threshold: float) -> float:
        called = scores >= threshold
        return float(called[targets == 1].mean() - called[targets == 0].mean())

    assert youden(choose_threshold(scores, targets)) >= max(youden(s) for s in scores) - 1e-9


@FEW
@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 1000))
def test_report_stays_in_range(classes: int, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    report = classification_report(
        rng.dirichlet(np.ones(classes), images), rng.integers(classes, size=images), resamples=20, seed=seed
    )
    for interval in report.values():
        assert all(math.isnan(x) or -1e-12 <= x <= 1 + 1e-12 for x in interval[:3])
        assert not interval.low > interval.high


@FEW
@given(VALUES)
def test_interval_lies_between_the_extremes(values: np.ndarray) -> None:
    interval, defined = bootstrap_interval(values, resamples=30), values[~np.isnan(values)]
    assert interval.n == defined.size
    assert math.isnan(interval.value) == (defined.size == 0)
    assert math.isnan(interval.low) == (defined.size < 2)
    if defined.size > 1:
        assert defined.min() - 1e-9 <= interval.low <= interval.high <= defined.max() + 1e-9


@FEW
@given(VALUES)
def test_difference_from_itself_is_nothing(values: np.ndarray) -> None:
    paired = paired_bootstrap(values, values, resamples=10)
    assert paired.n == (~np.isnan(values)).sum()
    assert paired.n == 0 or paired.value == 0


@FEW
@given(arrays.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_never_lowers_and_keeps_the_order(p_values: np.ndarray) -> None:
    adjusted = holm(p_values).numpy()
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, p_values * len(p_values))).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


@FEW
@given(MAPS)
def test_complexity_ranges_and_invariances(array: np.ndarray) -> None:
    maps, cells = torch.from_numpy(array), array[0].size
    empty = (maps == 0).all(2).all(1)
    for metric, high in [(gini, 1 - 1 / cells), (entropy, math.log(cells)), (near_zero_share, 1)]:
        values = metric(maps)
        assert torch.equal(values.isnan(), empty)
        assert within(values, 0, high)
        for same in (-2.5 * maps, maps.flip(1), maps.mT):
            torch.testing.assert_close(metric(same.contiguous()), values, equal_nan=True)
    torch.testing.assert_close(components(maps), components(maps.mT), equal_nan=True)
    assert within(components(maps), 1, cells)


@FEW
@given(MAPS)
def test_shares_leave_out_zeros_only(array: np.ndarray) -> None:
    maps = torch.from_numpy(array)
    zero = (maps == 0).double().mean((1, 2))
    torch.testing.assert_close(positive_share(maps) + negative_share(maps) + zero, torch.ones(2, dtype=torch.float64))


@FEW
@given(MAPS, st.data())
def test_localization_ranges_and_scale(array: np.ndarray, data: st.DataObject) -> None:
    maps = torch.from_numpy(array)
    masks = torch.from_numpy(data.draw(arrays.arrays(np.bool_, array.shape)))
    patch = data.draw(st.integers(1, 6))
    metrics = {
        "topk": lambda m: topk_precision(m, masks, k=4, patch=patch),
        "all": lambda m: localization_precision(m, masks, patch=patch, score="max"),
        "precision": lambda m: activation_precision(m, masks),
        "sensitivity": lambda m: activation_sensitivity(m, masks),
        "rank": lambda m: rank_accuracy(m, masks),
        "pointing": lambda m: pointing_game(m, masks, tolerance=1),
        "iou": lambda m: iou(m, masks, threshold=0),
        "auroc": lambda m: pixel_auroc(m, masks),
        "average_precision": lambda m: pixel_average_precision(m, masks),
    }
    empty = ~masks.flatten(1).any(1)
    for name, metric in metrics.items():
        values = metric(maps)
        assert within(values, 0, 1), name
        assert values[empty].isnan().all(), name
        torch.testing.assert_close(metric(4 * maps), values, equal_nan=True)


@FEW
@given(MAPS)
def test_map_equal_to_its_mask_is_perfect(array: np.ndarray) -> None:
    masks = torch.from_numpy(array > 0)
    assume(bool(masks.flatten(1).any(1).all()))
    maps = masks.double()
    for metric in (activation_precision, activation_sensitivity, rank_accuracy, pixel_average_precision):
        assert metric(maps, masks).tolist() == [1.0, 1.0]
    assert iou(maps, masks, threshold=0.5).tolist() == [1.0, 1.0]


def predict(images: Tensor) -> Tensor:
    positive = torch.sigmoid(images.mean((1, 2, 3)))
    return torch.stack([1 - positive, positive], 1)


@FEW
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
def test_deletion_mirrors_insertion_of_the_reversed_map(height: int, width: int, patch: int, seed: int) -> None:
    # Normal numbers do not tie; a reversed map would not reverse the order of ties.
    rng = np.random.default_rng(seed)
    maps, images = (
        torch.from_numpy(rng.normal(size=(2, height, width))),
        torch.from_numpy(rng.random((2, 1, height, width))),
    )
    target = torch.tensor([0, 1])
    total = math.ceil(height / patch) * math.ceil(width / patch)
    deleted = deletion_curve(predict, images, maps, target, patch=patch, steps=total)
    inserted = insertion_curve(predict, images, -maps, target, patch=patch, steps=total)
    torch.testing.assert_close(deleted, inserted.flip(1))
    assert within(area_under_curve(deleted), float(deleted.min()), float(deleted.max()))


@FEW
@given(MAPS, st.data())
def test_localization_is_undefined_only_where_nothing_can_be_judged(array: np.ndarray, data: st.DataObject) -> None:
    maps = torch.from_numpy(array)
    masks = torch.from_numpy(data.draw(arrays.arrays(np.bool_, array.shape)))
    flat, truth = maps.flatten(1), masks.flatten(1)
    empty, full = ~truth.any(1), truth.all(1)
    positive, constant = (flat > 0).any(1), flat.amax(1) == flat.amin(1)
    expected = {
        activation_precision: empty | ~positive,
        activation_sensitivity: empty | ~positive,
        rank_accuracy: empty | ~positive,
        pointing_game: empty | constant,
        pixel_auroc: empty | full,
        pixel_average_precision: empty,
    }
    for metric, undefined in expected.items():
        assert torch.equal(metric(maps, masks).isnan(), undefined), metric.__name__
    assert torch.equal(topk_precision(maps, masks, k=2, patch=1).isnan().all(1), empty | ~positive)
    assert torch.equal(localization_precision(maps, masks, patch=1).isnan(), empty | ~positive)
    assert torch.equal(iou(maps, masks, threshold=0).isnan(), empty)


@FEW
@given(MAPS, st.integers(0, 1000))
def test_faithfulness_ranges(array: np.ndarray, seed: int) -> None:
    maps, rng = torch.from_numpy(array), np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(2, 1, *array.shape[1:])))
    target, before = torch.tensor([0, 1]), predict(images)[[0, 1], [0, 1]]
    after = predict(highlight(images, maps))[[0, 1], [0, 1]]
    drop, risen = average_drop(before, after), confidence_increase(before, after)
    assert within(drop, 0, 1)
    assert set(risen.tolist()) <= {0.0, 1.0}
    assert not (drop.isnan() | risen.isnan()).any()
    assert (drop * risen == 0).all()
    assert (relative_drop(before, after) >= 0).all()
    areas = irof(predict, images, maps, target, segments=2)
    assert within(areas, -math.inf, 1)
    assert not areas.isnan().any()
    found = road(predict, images, maps, target, shares=(0.3,), seed=seed)
    assert within(found.morf, 0, 1)
    assert within(found.lerf, 0, 1)
    torch.testing.assert_close(found.combined, (found.lerf - found.morf) / 2)


@FEW
@given(MAPS, st.floats(0.1, 10), st.integers(0, 1000))
def test_no_map_forecasts_worse_than_nothing_and_its_unit_does_not_matter(
    array: np.ndarray, scale: float, seed: int
) -> None:
    maps, rng = torch.from_numpy(array), np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(2, 1, *array.shape[1:])))
    target, regions = torch.tensor([0, 1]), Regions(1, samples=5, seed=seed)
    error, same, nothing = (
        infidelity(predict, images, tried, target, regions=regions) for tried in (maps, scale * maps, 0 * maps)
    )
    assert (error <= nothing + 1e-12).all()
    torch.testing.assert_close(error, same)
    correlation = sensitivity_n(predict, images, maps, target, sizes=[1], regions=regions)
    assert within(correlation, -1, 1)
    assert correlation[(maps.flatten(1).amax(1) == maps.flatten(1).amin(1))].isnan().all()


@FEW
@given(VALUES, st.integers(1, 4))
def test_one_group_leaves_the_interval_undefined(values: np.ndarray, count: int) -> None:
    groups = np.arange(len(values)) % count
    interval = bootstrap_interval(values, groups=groups, resamples=20)
    known = len(set(groups[~np.isnan(values)].tolist()))
    assert math.isnan(interval.low) == math.isnan(interval.high) == (known < 2)
    paired = paired_bootstrap(values, np.zeros(len(values)), groups=groups, resamples=20)
    assert math.isnan(paired.p_value) == math.isnan(paired.low) == (known < 2)
