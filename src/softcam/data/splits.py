"""Splits into train, validation and test: seeded, stratified, group-disjoint and blind to the order of rows."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import pandas as pd

DEFAULT_FRACTIONS: Mapping[str, float] = MappingProxyType({"train": 0.65, "val": 0.1, "test": 0.25})


def assign_splits(
    table: pd.DataFrame,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
    stratify: Sequence[str] = (),
    group: str | None = None,
) -> pd.Series[str]:
    """Give every row a split so that each stratum is shared out by `fractions` and no group is torn apart.

    Units (groups, or images where there is no group) are put in an order drawn from the seed and their own name,
    stratum after stratum; each then goes to the split that lies furthest behind its share. Without groups the sizes are
    exactly the largest-remainder rounding of the fractions, and with three splits each stratum's are within three rows
    of its own shares.

    Args:
        table: One row per image, with an `image` column unless `group` is given.
        fractions: Share of the rows for each split; they sum to 1.
        seed: Draws another split for another number.
        stratify: Columns whose combinations are spread alike over the splits.
        group: Column whose values stay together, such as `patient`.

    Returns:
        The split of each row, on the table's index, named `split`.

    Raises:
        ValueError: If a column is missing, a unit has no name, or the fractions are not shares.

    Example:
        >>> table = pd.DataFrame({"image": [f"{i}.png" for i in range(20)], "patient": [i // 2 for i in range(20)]})
        >>> assign_splits(table, {"train": 0.8, "test": 0.2}, group="patient").value_counts().to_dict()
        {'train': 16, 'test': 4}
    """
    unit = "image" if group is None else group
    _check_columns(table, (unit, *stratify))
    _check_fractions(fractions)
    names = _name_units(table[unit])
    sizes = Counter(names)
    order = _order_units(names, _name_strata(table, stratify), seed)
    share = _share_out([sizes[name] for name in order], _count_rows(len(table), fractions))
    split_of = dict(zip(order, share, strict=True))
    return pd.Series([split_of[name] for name in names], index=table.index, name="split", dtype="str")


def _order_units(names: Iterable[str], strata: Iterable[str], seed: int) -> list[str]:
    # A unit whose rows lie in several strata forms a stratum with the units that mix the same ones.
    mixed: dict[str, set[str]] = defaultdict(set)
    for name, stratum in zip(names, strata, strict=True):
        mixed[name].add(stratum)
    order = sorted(mixed, key=lambda name: (_draw(seed, "\x1e".join(sorted(mixed[name]))), _draw(seed, name), name))
    # Without a drawn start, a stratum of one would be first or last and go to the same split for every seed.
    start = int(_draw(seed, "start"), 16) % max(len(order), 1)
    return order[start:] + order[:start]


def _count_rows(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    # Largest remainders: whole numbers that sum to the total.
    counts = {name: math.floor(total * fraction) for name, fraction in fractions.items()}
    remainders = sorted(fractions, key=lambda name: counts[name] - total * fractions[name])
    for name in remainders[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _share_out(sizes: Iterable[int], targets: Mapping[str, int]) -> list[str]:
    # Whole-number arithmetic: the choice is the same on every machine. With units of one row, a split is chosen only
    # while it is behind, so it ends at most a fraction of a row above its whole-number target, that is exactly on it.
    total, seen = sum(targets.values()), 0
    taken = dict.fromkeys(targets, 0)
    chosen = []
    for size in sizes:
        seen += size
        behind = {name: targets[name] * seen - taken[name] * total for name in targets}
        split = max(behind, key=behind.__getitem__)
        taken[split] += size
        chosen.append(split)
    return chosen


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{name}".encode()).hexdigest()


def _name_units(column: pd.Series[str]) -> list[str]:
    empty = int((column.isna() | (column.astype(str).str.strip() == "")).sum())
    if empty:
        raise ValueError(
            f"Expected `{column.name}` to be filled in every row, but got {empty} empty cell(s). Fill them."
        )
    return [str(value) for value in column]


def _name_strata(table: pd.DataFrame, stratify: Sequence[str]) -> list[str]:
    columns = [table[name].astype(str) for name in stratify]
    return ["\x1f".join(values) for values in zip(*columns, strict=True)] if columns else [""] * len(table)


def _check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise ValueError(f"Expected the columns {list(needed)}, but {missing} are missing. Got {list(table.columns)}.")


def _check_fractions(fractions: Mapping[str, float]) -> None:
    values = list(fractions.values())
    if (
        not values
        or not all(0.0 < value <= 1.0 for value in values)
        or not math.isclose(sum(values), 1.0, abs_tol=1e-9)
    ):
        raise ValueError(f"Expected `fractions` to be shares above 0 that sum to 1, but got {dict(fractions)}.")
