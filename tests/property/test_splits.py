"""What holds for every table that is split."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.data.splits import assign_splits

SHARES = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(
    lambda parts: {name: part / sum(parts) for name, part in zip(("train", "val", "test"), parts, strict=False)}
)
STRATA = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32)


def _table(strata: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{number}.png" for number in range(len(strata))], "label": strata})


@settings(max_examples=60)
@given(STRATA, SHARES, SEEDS)
def test_sizes_are_the_nearest_whole_numbers(strata: list[str], shares: dict[str, float], seed: int) -> None:
    sizes = Counter(assign_splits(_table(strata), shares, seed=seed, stratify=["label"]))
    assert sum(sizes.values()) == len(strata)
    for name, share in shares.items():
        assert math.floor(share * len(strata) - 1e-6) <= sizes[name] <= math.ceil(share * len(strata) + 1e-6)


@settings(max_examples=60)
@given(STRATA, SHARES, SEEDS)
def test_every_stratum_is_shared_out(strata: list[str], shares: dict[str, float], seed: int) -> None:
    table = _table(strata)
    split = assign_splits(table, shares, seed=seed, stratify=["label"])
    for label, count in Counter(strata).items():
        sizes = Counter(split[table["label"] == label])
        assert all(abs(sizes[name] - share * count) < 3 for name, share in shares.items())


@settings(max_examples=40)
@given(STRATA, SHARES, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    strata: list[str], shares: dict[str, float], seed: int, random: object
) -> None:
    table = _table(strata)
    table["patient"] = [number // 2 for number in range(len(table))]
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for group in (None, "patient"):
        split = assign_splits(table, shares, seed=seed, stratify=["label"], group=group)
        shuffled = assign_splits(table.iloc[order], shares, seed=seed, stratify=["label"], group=group)
        pd.testing.assert_series_equal(split, shuffled.sort_index())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), SHARES, SEEDS)
def test_groups_stay_together_and_miss_their_share_by_less_than_the_largest(
    patients: list[int], shares: dict[str, float], seed: int
) -> None:
    table = _table(["a"] * len(patients)).assign(patient=patients)
    split = assign_splits(table, shares, seed=seed, group="patient")
    assert split.groupby(table["patient"]).nunique().max() == 1
    largest = max(Counter(patients).values())
    sizes = Counter(split)
    assert all(sizes[name] - share * len(patients) <= largest + 1 for name, share in shares.items())
