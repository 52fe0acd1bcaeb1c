"""Plain nested values, as YAML and JSON hold them, to and from frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast

from softcam.errors import RecipeError

T = TypeVar("T")


def build(cls: type[T], values: Any, *, where: str = "") -> T:
    """Return dataclass `cls` made from a mapping, checking keys and types all the way down.

    Args:
        cls: A dataclass; its fields may be numbers, text, mappings, literals, dataclasses, or tuples of these.
        values: The mapping.
        where: Dotted name of the mapping within the whole, for messages.

    Raises:
        RecipeError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"Expected `{where or 'recipe'}` to be a mapping, but got {type(values).__name__}.")
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cast("Any", cls))]
    for key in values:
        if key not in names:
            raise RecipeError(_unknown_key(str(key), names, where))
    arguments = {key: _convert(hints[key], value, where=_join(where, key)) for key, value in values.items()}
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"Expected `{where or 'recipe'}` to be complete and in range, but {error}") from error


def _unknown_key(key: str, names: list[str], where: str) -> str:
    closest = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"Did you mean {_join(where, closest[0])!r}?" if closest else f"Known keys: {', '.join(names)}."
    return f"Expected a known key, but got {_join(where, key)!r}. {hint}"


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        choices = [item for item in arguments if item is not type(None)]
        return None if value is None else _convert(_choose(choices, value), value, where=where)
    if origin is Literal:
        require(value in arguments, where, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), where, "a list", value)
        return tuple(_convert(arguments[0], item, where=f"{where}[{row}]") for row, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, cast("type", hint)) else build(cast("type[Any]", hint), value, where=where)
    return _convert_scalar(origin or hint, value, where=where)


def _choose(choices: list[Any], value: Any) -> Any:
    """Return the type of a union that a value already has, else the first, whose name a message then gives."""
    return next((item for item in choices if type(value) is item), choices[0])


def _convert_scalar(kind: Any, value: Any, *, where: str) -> Any:
    if kind is float and isinstance(value, str):
        value = _number(value)  # YAML 1.1 reads 1e-3, which has no point, as text
    accepted: dict[Any, Callable[[Any], bool]] = {
        bool: lambda item: isinstance(item, bool),
        int: lambda item: isinstance(item, int) and not isinstance(item, bool),
        float: lambda item: isinstance(item, int | float) and not isinstance(item, bool),
        str: lambda item: isinstance(item, str),
    }
    fits = accepted.get(kind, lambda item: isinstance(item, Mapping))
    name = getattr(kind, "__name__", str(kind)).lower()
    require(fits(value), where, f"of type {name}", value)
    return float(value) if kind is float else value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def plain(value: Any) -> Any:
    """Return nested dataclasses as mappings, and tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def at_least(value: float, low: float) -> bool:
    """Whether `value` is a finite number not below `low`."""
    return math.isfinite(value) and value >= low


def above_zero(value: float) -> bool:
    """Whether `value` is a finite number above zero."""
    return math.isfinite(value) and value > 0


def require(fits: bool, key: str, constraint: str, value: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise `RecipeError` about `key` unless its value `fits` the constraint."""
    if not fits:
        raise RecipeError(f"Expected `{key}` to be {constraint}, but got {value!r}.")
