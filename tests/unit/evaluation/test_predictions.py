from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softcam.errors import IdentityError, RunError
from softcam.evaluation import predictions as predictions_module
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import predict_images, tabulate_predictions
from softcam.imaging import decode_image
from softcam.nn import Evidence, SoftCAM


def test_the_same_in_any_batch_size(world: Any, models: Contestants) -> None:
    part = world.manifest.subset("test")
    small, large = (predict_images(models, part, batch_size=size, tolerance=1e-5) for size in (2, 50))
    assert small.rows.tolist() == [row for row in range(16) if row != 7]
    assert small.patients is not None
    assert small.patients[:3].tolist() == ["p0", "p0", "p1"]
    np.testing.assert_allclose(small.probabilities, large.probabilities, atol=1e-6)
    assert small.black_box is not None
    assert large.black_box is not None
    np.testing.assert_allclose(small.black_box, large.black_box, atol=1e-6)
    assert small.sum_error.max() < 1e-5
    assert [failure.image for failure in small.failures] == ["07.png"]


def test_numbers_are_the_models_own(world: Any, models: Contestants) -> None:
    part = replace(world.manifest, table=world.manifest.table.iloc[:1])
    found = predict_images(models, part, batch_size=4, tolerance=1e-5)
    from_disk = models.preprocessing(decode_image(world.manifest.paths[0]))[0][None]
    with torch.no_grad():
        evidence = models.softcam.evidence(from_disk)
    np.testing.assert_allclose(found.probabilities, evidence.probabilities().numpy(), atol=1e-6)
    disease, margin = evidence.maps[:, 1], evidence.maps[:, 1] - evidence.maps[:, 0]
    shares = [float((m > 0).double().mean()) for m in (disease, -disease, margin, -margin)]
    np.testing.assert_allclose(found.shares[0], shares)


def test_other_models_are_asked_about_the_same_images_which_are_read_once(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = world.manifest.subset("test")
    together = load_contestants(world.softcam, world.black_box, part, device="cpu", others={"sparse": world.sparse})
    real, reads = predictions_module.read_batches, []

    def read_batches(*arguments: Any, **options: Any) -> Any:
        reads.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(predictions_module, "read_batches", read_batches)
    found = predict_images(together, part, batch_size=5, tolerance=1e-5)
    assert len(reads) == 1
    other = found.others["sparse"]
    alone = predict_images(together.instead("sparse"), part, batch_size=5, tolerance=1e-5)
    np.testing.assert_array_equal(other.probabilities, alone.probabilities)
    assert not np.array_equal(other.probabilities, found.probabilities)
    np.testing.assert_array_equal(other.black_box, found.black_box)
    assert alone.others == {}


def test_progress_reaches_the_end(world: Any, models: Contestants) -> None:
    seen: list[tuple[str, int, int]] = []
    part = world.manifest.subset("test")
    predict_images(models, part, batch_size=7, tolerance=1e-5, progress=lambda *step: seen.append(step))
    assert seen == [("predict", 7, 16), ("predict", 14, 16), ("predict", 16, 16)]


def test_broken_identity_stops_the_evaluation(world: Any, models: Contestants, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(images: Tensor) -> Evidence:
        evidence = SoftCAM.evidence(models.softcam, images)
        return replace(evidence, maps=evidence.maps * 1.01)

    monkeypatch.setattr(models.softcam, "evidence", broken)
    with pytest.raises(IdentityError, match="average to the logits"):
        predict_images(models, world.manifest.subset("test"), batch_size=4, tolerance=1e-5)


def test_black_box_with_nan_stops_the_evaluation(world: Any, models: Contestants) -> None:
    broken = replace(models, black_box=torch.nn.Sequential(models.black_box, torch.nn.Threshold(1e9, torch.nan)))
    with pytest.raises(RunError, match="finite logits from the black box"):
        predict_images(broken, world.manifest.subset("test"), batch_size=4, tolerance=1e-5)


def test_no_usable_image(world: Any, models: Contestants) -> None:
    part = replace(world.manifest, table=world.manifest.table.iloc[7:8].reset_index(drop=True))
    with pytest.raises(RunError, match="at least one usable image, but none of 1 could be read"):
        predict_images(models, part, batch_size=4, tolerance=1e-5)


def test_table(world: Any, models: Contestants) -> None:
    part = world.manifest.subset("test")
    predictions = predict_images(models, part, batch_size=8, tolerance=1e-5)
    table = tabulate_predictions(predictions, models, part)
    assert list(table.columns) == [
        "image", "label", "predicted", "prob_intact", "prob_defect",
        "black_box_prob_intact", "black_box_prob_defect", "sum_error",
    ]  # fmt: skip
    assert table["image"].tolist() == [f"{row:02}.png" for row in range(16) if row != 7]
    assert (table["predicted"] == np.where(table["prob_defect"] >= 0.4, "defect", "intact")).all()
    assert table["label"].tolist()[:4] == ["defect", "intact", "intact", "defect"]
    alone = tabulate_predictions(replace(predictions, black_box=None), replace(models, black_box=None), part)
    assert not [name for name in alone.columns if name.startswith("black_box")]
