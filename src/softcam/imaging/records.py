"""Frozen records of this room, read back from dictionaries without letting a misspelt key pass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def read_record(kind: type[Record], values: Mapping[str, object]) -> Record:
    """Build a dataclass from a dictionary, for example one read from JSON.

    Args:
        kind: The dataclass.
        values: Field values by name; fields with a default may be left out.

    Returns:
        The record, validated by its own constructor.

    Raises:
        TypeError: If `values` is not a mapping or a field without default is missing.
        ValueError: If a key is not a field; the closest field is named.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"Expected `values` to be a dictionary of {kind.__name__}, but got {type(values).__name__}.")
    described: tuple[Any, ...] = fields(kind)  # type: ignore[arg-type]
    _check_known(kind.__name__, values, [field.name for field in described])
    required = [f.name for f in described if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise TypeError(
            f"Expected `values` to hold every field of {kind.__name__}, but {', '.join(missing)} is missing."
        )
    return kind(**values)


def _check_known(title: str, values: Mapping[str, object], known: list[str]) -> None:
    for key in values:
        if key not in known:
            closest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            advice = f"Did you mean {closest[0]!r}?" if closest else "Remove it."
            raise ValueError(f"Expected the keys of {title} to be among {', '.join(known)}, but got {key!r}. {advice}")
