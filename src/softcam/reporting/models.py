"""The SoftCAM models of an evaluation beside each other: performance, what it cost, consistency of their maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from softcam.metrics.glossary import Measure, measure
from softcam.reporting.wording import DASH, estimate, number, scientific

State = Literal["held", "open", ""]
_SCORES = ("auroc", "accuracy")


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Args:
        title: Its name.
        scores: AUROC and accuracy with their intervals.
        difference: Paired difference from the black box and its one-sided bound; empty without a test.
        state: Whether the model was shown not to be inferior; empty without a test.
        verdict: The state in words.
        consistency: The measures of the table's `consistency` with their intervals.
        error: Largest relative error of the sum of a map; empty where there is none.
    """

    title: str
    scores: tuple[str, ...]
    difference: str
    state: State
    verdict: str
    consistency: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class ModelTable:
    """All models of an evaluation on the same test images."""

    scores: tuple[Measure, ...]
    consistency: tuple[Measure, ...]
    rows: tuple[ModelRow, ...]


def model_table(metrics: Mapping[str, Any]) -> ModelTable | None:
    """Return the models beside each other, or None if there is only one SoftCAM model.

    Args:
        metrics: What `metrics.json` holds; `others` by name with `classification`, `noninferiority`, `consistency`
            and `max_relative_error`.
    """
    others = metrics.get("others") or {}
    if not others:
        return None
    error = (metrics.get("identity") or {}).get("max_relative_error")
    models = [("SoftCAM", {**metrics, "max_relative_error": error})]
    models += [("black box", {"classification": metrics["black_box"]})] if metrics.get("black_box") else []
    models += [(str(name), found) for name, found in others.items()]
    scores = [name for name in _SCORES if any(name in (found.get("classification") or {}) for _, found in models)]
    names = dict.fromkeys(
        name for _, found in models for name, entry in (found.get("consistency") or {}).items() if _is_known(entry)
    )
    rows = tuple(_row(title, found, scores, tuple(names)) for title, found in models)
    return ModelTable(tuple(map(measure, scores)), tuple(map(measure, names)), rows)


def _row(title: str, found: Mapping[str, Any], scores: list[str], names: tuple[str, ...]) -> ModelRow:
    test, error = found.get("noninferiority"), found.get("max_relative_error")
    state: State = "" if not test else "held" if test["passed"] else "open"
    return ModelRow(
        title=title,
        scores=tuple(_cell((found.get("classification") or {}).get(name)) for name in scores),
        difference=_difference(test) if test else "",
        state=state,
        verdict={"held": "not inferior", "open": "not shown", "": ""}[state],
        consistency=tuple(_cell((found.get("consistency") or {}).get(name)) for name in names),
        error="" if error is None else scientific(float(error)),
    )


def _difference(test: Mapping[str, Any]) -> str:
    return f"{number(test['difference'], signed=True)} (bound {number(test['low'], signed=True)})"


def _cell(found: Any) -> str:
    return estimate(found) if _is_known(found) else DASH


def _is_known(found: Any) -> bool:
    return isinstance(found, Mapping) and {"value", "low", "high"} <= found.keys()
