from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.data import Manifest, read_manifest
from softcam.errors import ImageError
from softcam.evaluation.truth import Findings, has_truth, read_findings, read_truth
from softcam.imaging import Preprocessing

SAME = Preprocessing(size=20)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[3:5, 10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name in "abcd":
        Image.fromarray(np.full((20, 20), ord(name), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    rows = [
        ("a.png", "sick", "mask.png", ""),
        ("b.png", "sick", "", "[[2, 4, 3, 1]]"),
        ("c.png", "sick", "mask.png", "[[0, 19, 1, 1]]"),
        ("d.png", "well", "", ""),
    ]
    table = pd.DataFrame(rows, columns=["image", "label", "mask", "boxes"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    return read_manifest(tmp_path / "manifest.csv")


def pixels(truth: torch.Tensor | None) -> set[tuple[int, ...]]:
    assert truth is not None
    return {tuple(place) for place in truth.nonzero().tolist()}


def test_masks_and_boxes_are_drawn_together(manifest: Manifest) -> None:
    marked = {(3, 10), (4, 10)}
    assert pixels(read_truth(manifest, 0, SAME)) == marked
    assert pixels(read_truth(manifest, 1, SAME)) == {(4, 2), (4, 3), (4, 4)}
    assert pixels(read_truth(manifest, 2, SAME)) == marked | {(19, 0)}
    assert read_truth(manifest, 3, SAME) is None


def test_truth_goes_where_the_image_goes(manifest: Manifest) -> None:
    assert pixels(read_truth(manifest, 0, Preprocessing(size=10))) == {(1, 5), (2, 5)}


def test_a_table_without_any_has_none(manifest: Manifest) -> None:
    assert has_truth(manifest)
    assert not has_truth(replace(manifest, table=manifest.table.drop(columns=["mask", "boxes"])))


def test_a_broken_mask_is_named(manifest: Manifest) -> None:
    (manifest.root / "mask.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        read_truth(manifest, 0, SAME)


def test_findings_are_those_of_the_rows_that_have_any(manifest: Manifest) -> None:
    findings = read_findings(manifest, [3, 1, 0], SAME)
    assert set(findings.truth) == {0, 1}
    assert findings.failures == ()
    assert read_findings(manifest, [3], SAME).truth == {}


def test_a_broken_mask_is_left_out_and_named(manifest: Manifest) -> None:
    (manifest.root / "mask.png").write_bytes(b"no image")
    findings = read_findings(manifest, range(4), SAME)
    assert set(findings.truth) == {1}
    assert [failure.image for failure in findings.failures] == ["mask.png", "mask.png"]
    assert all(failure.reason for failure in findings.failures)


def test_only_the_class_of_the_findings_has_something_to_find(manifest: Manifest) -> None:
    findings = read_findings(manifest, range(4), SAME)
    truth = findings.of([0, 1, 3], torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0]))
    assert truth is not None
    assert truth.flatten(1).sum(1).tolist() == [2, 0, 0]
    assert Findings({}).of([0], torch.tensor([1]), torch.tensor([1])) is None
