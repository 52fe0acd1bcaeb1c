"""A prediction is confirmed, or what differs is named with its size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.predict import Prediction, Predictor
from softcam.records import (
    Record,
    Signer,
    describe_prediction,
    digest_array,
    digest_json,
    read_chain,
    recompute,
    write_chain,
)


def record(path: Path, bodies: list[dict[str, Any]], signer: Signer) -> list[Record]:
    write_chain(path, ((body, "2026-01-01T00:00:00+00:00") for body in bodies), signer)
    return [found for found in read_chain(path) if found is not None]


def with_frames(pictures: list[Any]) -> list[tuple[Any, int | None]]:
    return [(picture, None) for picture in pictures]


def test_the_same_model_confirms_to_the_last_bit(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor, pictures: list[Any]
) -> None:
    found = list(recompute(record(chain, bodies, signer), predictor, with_frames(pictures[::-1])))
    assert [(c.sequence, c.name, c.outcome, c.identical) for c in found] == [
        (1, "a.png", "confirmed", True),
        (2, "b.png", "confirmed", True),
        (3, "c.png", "confirmed", True),
    ]
    assert {c.largest for c in found} == {0.0}


def test_images_that_are_not_given_are_named(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor, pictures: list[Any]
) -> None:
    found = list(recompute(record(chain, bodies, signer), predictor, with_frames(pictures[:1])))
    assert [c.outcome for c in found] == ["confirmed", "absent", "absent"]


def test_another_model_differs_in_all_that_it_changes(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], make_toy: Callable[..., nn.Module], pictures: list[Any]
) -> None:
    changed = make_toy(3)
    with torch.no_grad():
        changed.fc.bias += torch.tensor([0.5, 0.0, 0.0])
    predictor = Predictor(convert(changed), preprocessing=Preprocessing(size=32, mean=(0.4,) * 3), backend="torch")
    for found in recompute(record(chain, bodies, signer), predictor, with_frames(pictures)):
        assert found.outcome == "differs"
        assert {"fingerprint", "preprocessing", "logits"} <= set(found.differences)
        assert found.largest > 0.01
        assert found.differences["logits"] == f"by {found.largest:.3g} of the largest"


@pytest.mark.parametrize(("shift", "outcome"), [(0.9e-4, "confirmed"), (1.1e-4, "differs")])
def test_the_tolerance_is_relative_to_the_largest_logit(
    shift: float,
    outcome: str,
    chain: Path,
    signer: Signer,
    bodies: list[dict[str, Any]],
    predictor: Predictor,
    pictures: list[Any],
) -> None:
    changed = copy.deepcopy(bodies)
    logits = changed[1]["logits"]
    logits[0] += shift * max(map(abs, logits))
    found = list(recompute(record(chain, changed, signer), predictor, with_frames(pictures)))
    assert found[0].outcome == outcome
    assert not found[0].identical
    assert found[1].identical


def test_a_predicted_class_that_was_changed_is_named(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor, pictures: list[Any]
) -> None:
    changed = copy.deepcopy(bodies)
    changed[2]["predicted"] = "another"
    found = list(recompute(record(chain, changed, signer), predictor, with_frames(pictures)))
    assert "another" in found[1].differences["predicted"]


def test_maps_are_compared_with_their_files(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor, pictures: list[Any], tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    folder.mkdir()
    maps = next(iter(predictor(pictures))).maps
    # Other maps of the same mean: what only a file can tell.
    turned = np.roll(maps, 1, axis=2)
    changed = copy.deepcopy(bodies)
    changed[1]["evidence"] |= {"digest": digest_array(turned), "file": "evidence/a.png.npz"}
    records = record(chain, changed, signer)

    def compare() -> Any:
        return next(iter(recompute(records, predictor, with_frames(pictures), folder=tmp_path)))

    assert compare().outcome == "confirmed", "without the file the logits are all there is"
    np.savez(folder / "a.png.npz", maps=turned)
    assert set(compare().differences) == {"maps"}
    np.savez(folder / "a.png.npz", maps=turned + 1)
    assert "recorded digest" in compare().differences["evidence"]
    (folder / "a.png.npz").write_bytes(b"words")
    assert "cannot be read" in compare().differences["evidence"]


def test_a_name_that_leads_out_of_the_folder_is_not_followed(
    chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor, pictures: list[Any], tmp_path: Path
) -> None:
    changed = copy.deepcopy(bodies)
    changed[1]["evidence"] |= {"digest": "0" * 64, "file": "../../secret.npz"}
    records = record(chain, changed, signer)
    found = next(iter(recompute(records, predictor, with_frames(pictures), folder=tmp_path)))
    assert "leads out" in found.differences["evidence"]


def test_frames_are_told_apart(chain: Path, signer: Signer, bodies: list[dict[str, Any]], predictor: Predictor) -> None:
    """Frames of a file have one digest."""
    frames = [copy.deepcopy(body) for body in bodies[1:3]]
    for number, body in enumerate(frames, start=1):
        body["image"].update(digest="d" * 64, frame=number)
    records = record(chain, [bodies[0], *frames], signer)

    class Same(Predictor):
        def __init__(self) -> None:
            self.__dict__.update(vars(predictor))

        def __call__(self, inputs: Any) -> Any:
            by_name = {body["image"]["name"]: body for body in frames}
            for one in inputs:
                body = by_name[one]
                yield Prediction(
                    one, "ok", ("0", "1", "2"), predicted=body["predicted"], digest="d" * 64,
                    logits=np.array(body["logits"], np.float32), maps=np.zeros(body["evidence"]["shape"], np.float32),
                )  # fmt: skip

    found = list(recompute(records, Same(), [("b.png", 2), ("a.png", 1)]))  # type: ignore[list-item]
    assert [c.outcome for c in found] == ["confirmed", "confirmed"]
    swapped = list(recompute(records, Same(), [("b.png", 1), ("a.png", 2)]))  # type: ignore[list-item]
    assert [c.outcome for c in swapped] == ["differs", "differs"]


def test_digests_depend_on_content_alone() -> None:
    assert digest_json({"a": 1, "b": [2.5]}) == digest_json({"b": [2.5], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": 2})
    values = np.arange(6, dtype=np.float32)
    assert digest_array(values.reshape(2, 3)) != digest_array(values.reshape(3, 2))
    assert digest_array(values) == digest_array(values.astype(np.float64)) == digest_array(np.asfortranarray(values))
    with pytest.raises(ValueError, match="JSON"):
        digest_json({"a": float("nan")})


def test_a_failure_is_recorded_by_its_reason() -> None:
    body = describe_prediction(
        Prediction("x", "failed", ("a",), "file is empty", digest="e" * 64), name="x", frame=None
    )
    assert body == {
        "kind": "failure",
        "image": {"name": "x", "digest": "e" * 64, "frame": None},
        "reason": "file is empty",
    }
