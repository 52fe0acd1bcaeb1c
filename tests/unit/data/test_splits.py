"""Splits: sizes by hand, groups, strata, seeds, refusals. The general promises are in tests/property."""

from __future__ import annotations

import pandas as pd
import pytest

from softcam.data.splits import assign_splits


def _table(count: int, **columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{number}.png" for number in range(count)], **columns})


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(2624, {"train": 1706, "test": 656, "val": 262}), (20, {"train": 13, "test": 5, "val": 2}), (1, {"train": 1})],
)
def test_default_sizes(count: int, sizes: dict[str, int]) -> None:
    assert assign_splits(_table(count)).value_counts().to_dict() == sizes


def test_strata_are_spread_alike() -> None:
    table = _table(200, label=["x"] * 40 + ["y"] * 160)
    split = assign_splits(table, {"train": 0.5, "test": 0.5}, stratify=["label"])
    assert pd.crosstab(table["label"], split).to_numpy().tolist() == [[20, 20], [80, 80]]


def test_every_stratum_column_counts() -> None:
    table = _table(80, label=["x", "y"] * 40, kind=["m", "m", "p", "p"] * 20)
    split = assign_splits(table, {"train": 0.75, "test": 0.25}, stratify=["label", "kind"])
    sizes = pd.crosstab([table["label"], table["kind"]], split)["test"]
    assert sizes.tolist() == [5, 5, 5, 5]


def test_groups_stay_together() -> None:
    table = _table(90, patient=[number // 3 for number in range(90)])
    split = assign_splits(table, group="patient")
    assert split.groupby(table["patient"]).nunique().max() == 1
    assert assign_splits(table).groupby(table["patient"]).nunique().max() > 1


def test_the_same_image_twice_is_one_unit() -> None:
    table = pd.DataFrame({"image": [f"{number % 10}.png" for number in range(20)]})
    assert assign_splits(table).groupby(table["image"]).nunique().max() == 1


def test_the_seed_draws_another_split() -> None:
    assert not assign_splits(_table(50), seed=0).equals(assign_splits(_table(50), seed=1))


def test_rare_strata_do_not_always_go_to_the_same_split() -> None:
    table = _table(30, label=["rare", *["common"] * 29])
    assert {assign_splits(table, seed=seed, stratify=["label"])[0] for seed in range(60)} == {"train", "val", "test"}


def test_a_known_split_never_changes() -> None:
    # Stored manifests are reproduced by their seed: a change of the rule is a break and must be seen.
    letters = {"train": "t", "val": "v", "test": "e"}
    assert "".join(letters[name] for name in assign_splits(_table(20), seed=3)) == "ttvetttetttettttveet"


def test_the_index_of_the_table_is_kept() -> None:
    split = assign_splits(_table(4).set_index(pd.Index([7, 5, 3, 1])))
    assert list(split.index) == [7, 5, 3, 1]
    assert split.name == "split"


@pytest.mark.parametrize(
    "fractions",
    [
        {},
        {"train": 0.5, "test": 0.4},
        {"train": 1.5, "test": -0.5},
        {"train": 1.0, "test": 0.0},
        {"train": float("nan")},
    ],
)
def test_fractions_must_be_shares(fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares above 0 that sum to 1"):
        assign_splits(_table(4), fractions)


def test_columns_must_be_there_and_units_named() -> None:
    with pytest.raises(ValueError, match=r"columns \['patient', 'label'\], but \['patient', 'label'\] are missing"):
        assign_splits(_table(4), group="patient", stratify=["label"])
    table = _table(4, patient=["SMITH", None, " ", float("nan")])
    with pytest.raises(ValueError, match="`patient` to be filled in every row, but got 3 empty") as caught:
        assign_splits(table, group="patient")
    assert "SMITH" not in str(caught.value)
