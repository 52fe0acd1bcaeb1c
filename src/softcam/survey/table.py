"""The rows of the survey, and the file that holds them."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import Any, Literal

Outcome = Literal["exact", "trainable", "no", "defect"]

SURVEY = "survey.json"

WORDS: Mapping[Outcome, str] = {"exact": "exactly", "trainable": "after fine-tuning", "no": "no", "defect": "defect"}
"""What an outcome means for a user."""


@dataclass(frozen=True)
class SurveyRow:
    """What becomes of one model.

    Args:
        model: Name as `create_black_box` takes it.
        outcome: It converts with the same logits (`exact`), its head is copied and has to be fine-tuned
            (`trainable`), only a new class evidence layer can be put on its features (`no`), or something other than
            a refusal was raised (`defect`).
        reason: Why it is not exact.
        head: Kind of class evidence layer.
        layout: Order of the feature dimensions in the black box.
        prefix: Leading tokens without a place in the image.
        channels: D, channels under the evidence layer.
        input_size: Height and width in pixels to which all that follows belongs: the default, unless it says so.
        grid: Cells (h, w) of a map at that size.
        map_stride: Input pixels from one cell to the next.
        error: Largest relative difference of logits in float32, where the whole network was converted and is exact.
        error64: The same in float64.
        drift: The same in float32, before any fine-tuning, where it is not exact.
    """

    model: str
    outcome: Outcome
    reason: str | None = None
    head: str | None = None
    layout: str | None = None
    prefix: int | None = None
    channels: int | None = None
    input_size: tuple[int, ...] | None = None
    grid: tuple[int, ...] | None = None
    map_stride: tuple[int, ...] | None = None
    error: float | None = None
    error64: float | None = None
    drift: float | None = None

    @property
    def measured(self) -> bool:
        """Whether the whole network was converted, rather than its head alone judged."""
        return self.error is not None or self.drift is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SurveyRow:
        """Return the row that `to_dict` gave."""
        stored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**stored)


COLUMNS = tuple(field.name for field in fields(SurveyRow))


@dataclass(frozen=True)
class Survey:
    """The table.

    Args:
        versions: Versions of the libraries that it was made with.
        rows: One per model.
    """

    versions: Mapping[str, str]
    rows: tuple[SurveyRow, ...]

    def select(self, pattern: str = "*", *, head: str | None = None, exact: bool = False) -> tuple[SurveyRow, ...]:
        """Return some of the rows.

        Args:
            pattern: Shell-style pattern on the model's name, with or without `timm:` or `torchvision:`.
            head: Kind of class evidence layer; default: all.
            exact: Whether to leave out what is not exact.
        """
        return tuple(
            row
            for row in self.rows
            if _matches(row.model, pattern)
            and (head is None or row.head == head)
            and (not exact or row.outcome == "exact")
        )

    def to_json(self) -> str:
        """Return the text of the survey's file: names of columns, then one line per model."""
        lines = [json.dumps(list(row.to_dict().values()), separators=(",", ":")) for row in self.rows]
        head = json.dumps({"versions": dict(self.versions), "columns": COLUMNS})
        return head[:-1] + ', "rows": [\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def from_json(cls, text: str) -> Survey:
        """Return the survey that `to_json` gave."""
        stored = json.loads(text)
        rows: Iterable[list[Any]] = stored["rows"]
        return cls(
            stored["versions"],
            tuple(SurveyRow.from_dict(dict(zip(stored["columns"], row, strict=True))) for row in rows),
        )


def read_survey() -> Survey:
    """Return the survey that comes with the package."""
    return Survey.from_json(resources.files("softcam").joinpath(SURVEY).read_text(encoding="utf-8"))


def shorten_reason(message: str) -> str:
    """Return what was found, from the message of a refusal.

    Example:
        >>> shorten_reason("Expected the head to be mean -> affine, but it is not. Its maps cannot average.")
        'it is not'
    """
    _, _, found = message.partition(", but ")
    return (found or message).partition(". ")[0].rstrip(".")


def _matches(model: str, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for name in (model, model.partition(":")[2]))
