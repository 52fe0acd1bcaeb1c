"""What an evaluation holds at once does not depend on how many images it has."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.data import Manifest
from softcam.evaluation import evaluate, images, locality

MASK = 64 * 64
IMAGE = 4 * 3 * MASK
BATCH = 5


def count_living() -> int:
    """Return the bytes of all tensors that Python can reach and were not frozen, each storage once."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [entry for entry in gc.get_objects() if type(entry) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found}
    return sum(storages.values())


def repeat(manifest: Manifest, times: int) -> Manifest:
    """Return the manifest of test images with each row several times, each with a mask."""
    part = manifest.subset("test")
    mask = np.zeros((70, 80), dtype=np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(part.root / "mask.png")
    table = pd.concat([part.table.assign(mask="mask.png")] * times, ignore_index=True)
    return replace(part, table=table, rows=None)


class Immediate:
    """Stands in for the pool of threads: what is read ahead is there at once, so that every run counts the same."""

    def __init__(self, _workers: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[[int], Any], row: int) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(row))
        return future


@pytest.fixture
def most_living(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], dict[str, int]]]:
    """Evaluate, and return the most bytes of tensors by stage, beside those that were there before."""

    def run(times: int) -> dict[str, int]:
        most: dict[str, int] = {}

        def look(stage: str, _done: int = 0, _total: int = 0) -> None:
            most[stage] = max(most.get(stage, 0), count_living())

        def ask(*arguments: Any, real: Any = locality.ask, **options: Any) -> Any:
            look("locality")
            return real(*arguments, **options)

        manifest = repeat(world.manifest, times)
        count = 15 * times
        settings = world.settings(
            split=None, explained=count, located=count, methods=("evidence",), measures=("localization",), resamples=10,
        )  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(locality, "ask", ask)
            patched.setattr(images, "ThreadPoolExecutor", Immediate)
            found = evaluate(world.softcam, manifest, black_box_path=world.black_box, settings=settings, progress=look)
        assert found.metrics["counts"] == {
            "test": count, "failed": times, "failed_masks": 0, "faithfulness": count, "faithfulness_slow": 2,
        }  # fmt: skip
        assert found.metrics["locality"]["images"] == count
        return most

    gc.collect()
    # What is there already is neither counted nor gone through again and again.
    gc.freeze()
    yield run
    gc.unfreeze()


def test_three_times_the_images_take_no_more_memory(most_living: Callable[[int], dict[str, int]]) -> None:
    few, many = most_living(1), most_living(3)
    assert set(few) == {"predict", "explain", "locality", "gallery"}
    for stage, found in many.items():
        # Of 30 further images, not even their masks, which are a twelfth of their pixels.
        assert found - few[stage] < 30 * MASK / 2, stage
    # That the count sees what it should: the pixels of one batch at least.
    assert min(few["explain"], few["locality"]) >= BATCH * IMAGE
