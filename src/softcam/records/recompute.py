"""Compute recorded predictions again: confirm them, or name what differs and by how much."""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from softcam.predict import Prediction, Predictor, Readable
from softcam.records.chain import Record
from softcam.records.facts import digest_array, digest_json

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest of them, that counts as the same on another machine or in
another runtime: what `Predictor` allows between its backends."""

Outcome = Literal["confirmed", "differs", "absent"]


@dataclass(frozen=True)
class Comparison:
    """A recorded prediction and the one computed now.

    Args:
        sequence: Of the record.
        name: Of the image, as recorded.
        outcome: `confirmed`, `differs`, or `absent` if no image with the recorded digest was given.
        differences: What differs, by field, each in words.
        identical: Whether logits and maps are the same to the last bit.
        largest: Largest difference of the logits, relative to the largest of them; NaN if absent.
    """

    sequence: int
    name: str
    outcome: Outcome
    differences: Mapping[str, str]
    identical: bool = False
    largest: float = float("nan")


def recompute(
    records: Iterable[Record],
    predictor: Predictor,
    images: Iterable[tuple[Readable, int | None]],
    *,
    tolerance: float = TOLERANCE,
    folder: Path | None = None,
) -> Iterator[Comparison]:
    """Yield a comparison for every recorded prediction, in the order of the records.

    Maps are compared by their digest. Where that differs, as it may on another machine, and the evidence files are
    there, the files are compared with their recorded digest and the maps with the files; without files the logits,
    which are the maps' means, are all that can be compared.

    Args:
        records: Of one chain; their bodies are held in memory, their maps are not.
        predictor: The model; where it is not the recorded one, every record differs.
        images: In any order, each with its number in a file that holds several; each is read once.
        tolerance: Largest difference that counts as the same, relative to the largest logit.
        folder: Of the records, in which their evidence files are.
    """
    wanted = _Wanted(records, predictor)
    found: dict[int, Comparison] = {}
    frames: deque[int | None] = deque()
    for prediction in predictor(_note_frames(images, frames)):
        for record, problems in wanted.take(prediction, frames.popleft()):
            found[record.sequence] = _compare(record, prediction, problems, tolerance, folder)
    for record in wanted.all:
        name = str(record.body["image"]["name"])
        yield found.get(record.sequence) or Comparison(record.sequence, name, "absent", {})


class _Wanted:
    """The recorded predictions by image, each with what is wrong about its circumstances."""

    def __init__(self, records: Iterable[Record], predictor: Predictor) -> None:
        self.all: list[Record] = []
        self._by_image: dict[str, list[tuple[Record, dict[str, str]]]] = {}
        problems: dict[str, str] = {}
        contexts: dict[str, dict[str, str]] = {}
        for record in records:
            if record.body.get("kind") == "context":
                problems = contexts[record.digest] = _compare_context(record.body, predictor)
            elif record.body.get("kind") == "prediction":
                own = contexts.get(record.body.get("context", ""), problems)
                self.all.append(record)
                self._by_image.setdefault(_key(record.body["image"]), []).append((record, own))
        if any("fingerprint" not in found for found in contexts.values()):
            self._pass_over_others()

    def _pass_over_others(self) -> None:
        """Leave out the records of other models, where the chain has some of this one."""
        for image, found in self._by_image.items():
            self._by_image[image] = [(record, own) for record, own in found if "fingerprint" not in own]
        kept = {record.sequence for found in self._by_image.values() for record, _ in found}
        self.all = [record for record in self.all if record.sequence in kept]

    def take(self, prediction: Prediction, frame: int | None) -> list[tuple[Record, dict[str, str]]]:
        """Return the records of an image that have not been compared."""
        return self._by_image.pop(_key({"digest": prediction.digest, "frame": frame}), [])


def _note_frames(images: Iterable[tuple[Readable, int | None]], frames: deque[int | None]) -> Iterator[Readable]:
    for image, frame in images:
        frames.append(frame)
        yield image


def _key(image: Mapping[str, Any]) -> str:
    return f"{image['digest']}#{image['frame'] or ''}"


def _compare_context(context: Mapping[str, Any], predictor: Predictor) -> dict[str, str]:
    recorded, present = context["model"], predictor.identity
    return {
        name: f"recorded {_show(recorded.get(name))}, now {_show(present.get(name))}"
        for name in sorted(present.keys() | recorded.keys())
        if recorded.get(name) != present.get(name)
    }


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else f"digest {digest_json(value)}"
    return text[:24]


def _compare(
    record: Record, prediction: Prediction, problems: Mapping[str, str], tolerance: float, folder: Path | None
) -> Comparison:
    body, name = record.body, str(record.body["image"]["name"])
    if prediction.status == "failed":
        return Comparison(record.sequence, name, "differs", {**problems, "status": f"failed now: {prediction.reason}"})
    differences = dict(problems)
    logits = np.array(body["logits"], np.float32)
    largest = _relative(logits, prediction.logits)
    if not largest <= tolerance:
        differences["logits"] = f"by {largest:.3g} of the largest"
    if body["predicted"] != prediction.predicted:
        differences["predicted"] = f"recorded {body['predicted']!r}, now {prediction.predicted!r}"
    same_maps = body["evidence"]["digest"] == digest_array(prediction.maps)
    if not same_maps and folder is not None and body["evidence"].get("file"):
        differences |= _compare_maps(body, prediction.maps, _find_file(folder, body["evidence"]["file"]), tolerance)
    identical = same_maps and bool(np.array_equal(logits, prediction.logits))
    outcome: Outcome = "differs" if differences else "confirmed"
    return Comparison(record.sequence, name, outcome, differences, identical, largest)


def _find_file(folder: Path, name: str) -> Path | None:
    # Whoever wrote the records may have written anything for a name.
    file = folder / name
    return file if file.resolve().is_relative_to(folder.resolve()) else None


def _compare_maps(
    body: Mapping[str, Any], maps: npt.NDArray[np.float32], file: Path | None, tolerance: float
) -> dict[str, str]:
    if file is None:
        return {"evidence": "the name of its file leads out of the folder of the records"}
    try:
        with np.load(file, allow_pickle=False) as kept:
            stored = kept["maps"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {"evidence": "the stored file cannot be read: it was changed"}
    if digest_array(stored) != body["evidence"]["digest"]:
        return {"evidence": "the stored file does not have the recorded digest: it was changed"}
    difference = _relative(stored, maps)
    return {} if difference <= tolerance else {"maps": f"by {difference:.3g} of the largest"}


def _relative(recorded: npt.NDArray[np.float32], present: npt.NDArray[np.float32]) -> float:
    if recorded.shape != present.shape:
        return float("inf")
    scale = float(np.abs(recorded).max(initial=0.0)) or 1.0
    return float(np.abs(recorded.astype(np.float64) - present).max(initial=0.0)) / scale
