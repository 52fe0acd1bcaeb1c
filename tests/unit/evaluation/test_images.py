from __future__ import annotations

from typing import Any

import torch

from softcam.evaluation.images import read_batches, read_image
from softcam.imaging import Preprocessing, decode_image


def test_bad_files_are_named_and_left_out(world: Any) -> None:
    part = world.manifest.subset("test")
    batches = list(read_batches(part, range(len(part)), Preprocessing(size=8), batch_size=5))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 8, 9], [10, 11, 12, 13, 14], [15]]
    failures = [failure for batch in batches for failure in batch.failures]
    assert [failure.image for failure in failures] == ["07.png"]
    assert failures[0].reason


def test_a_batch_of_failures_alone_is_empty(world: Any) -> None:
    batches = list(read_batches(world.manifest, [7], Preprocessing(size=8), batch_size=5))
    assert [(len(batch.rows), len(batch.images), len(batch.failures)) for batch in batches] == [(0, 0, 1)]


def test_images_are_normalised_and_in_the_order_asked_for(world: Any) -> None:
    preprocessing = Preprocessing(size=8)
    (batch,) = read_batches(world.manifest, [3, 1], preprocessing, batch_size=5)
    expected = [preprocessing(decode_image(world.manifest.paths[row]))[0] for row in (3, 1)]
    assert torch.equal(batch.images, torch.stack(expected))


def test_one_image_as_the_network_sees_it(world: Any) -> None:
    shown = read_image(world.manifest, 2, Preprocessing(size=8))
    assert shown.image.shape == (3, 8, 8)
    assert 0 <= float(shown.image.min()) <= float(shown.image.max()) <= 1
    assert (shown.geometry.original_height, shown.geometry.original_width) == (70, 80)
