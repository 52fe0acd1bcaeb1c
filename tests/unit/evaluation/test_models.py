from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from softcam.attribution import METHODS
from softcam.bundle import load, load_black_box, read_config, save
from softcam.data import read_manifest
from softcam.errors import RunError, SoftCAMError
from softcam.evaluation.models import load_contestants
from softcam.imaging import Preprocessing


def test_thresholds_are_those_of_each_bundle(world: Any) -> None:
    models = load_contestants(world.softcam, world.black_box, world.manifest, device="cpu")
    assert models.thresholds == {"softcam": 0.4, "black_box": 0.45}
    assert load_contestants(world.softcam, None, world.manifest, device="cpu").thresholds == {"softcam": 0.4}
    assert models.preprocessing == Preprocessing(size=64)
    assert not models.softcam.training


def test_peers_explain_the_twin_and_without_it_the_softcam(world: Any) -> None:
    models = load_contestants(world.softcam, world.black_box, world.manifest, device="cpu")
    assert models.explained_by(METHODS["grad_cam"]) is models.black_box
    assert models.explained_by(METHODS["evidence"]) is models.softcam
    alone = load_contestants(world.softcam, None, world.manifest, device="cpu")
    assert alone.explained_by(METHODS["grad_cam"]) is alone.softcam


def test_images_become_channels_last(world: Any) -> None:
    models = load_contestants(world.softcam, None, world.manifest, device="cpu")
    assert models.to_device(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_classes_in_another_order_are_refused(world: Any) -> None:
    manifest = read_manifest(world.folder / "data", classes=world.classes[::-1])
    with pytest.raises(RunError, match=r"classes to be the model's \('intact', 'defect'\), but got \('defect'"):
        load_contestants(world.softcam, None, manifest, device="cpu")


def test_data_of_another_kind_than_the_model_are_refused(world: Any) -> None:
    manifest = replace(world.manifest, task="multilabel")
    with pytest.raises(RunError, match="of the same kind, but the model is multiclass and the data multilabel"):
        load_contestants(world.softcam, None, manifest, device="cpu")


def test_a_twin_with_other_preprocessing_is_refused(world: Any) -> None:
    other = Preprocessing(size=32).to_dict()
    path = save(load_black_box(world.black_box), world.folder / "other", classes=world.classes, preprocessing=other)
    with pytest.raises(RunError, match="share the model's preprocessing"):
        load_contestants(world.softcam, path, world.manifest, device="cpu")


def test_others_come_by_name_and_may_take_the_place(world: Any) -> None:
    models = load_contestants(
        world.softcam, world.black_box, world.manifest, device="cpu", others={"sparse": world.sparse}
    )
    assert list(models.networks) == ["softcam", "black_box", "sparse"]
    configs = (world.softcam, world.black_box, world.sparse)
    assert models.fingerprints == {
        name: read_config(path).fingerprint for name, path in zip(models.networks, configs, strict=True)
    }
    assert len(set(models.fingerprints.values())) == 3
    other = models.instead("sparse")
    assert other.softcam is models.networks["sparse"] is not models.softcam
    assert not other.softcam.training
    assert other.black_box is None
    assert other.others == {}
    assert other.thresholds == {"softcam": 0.3}
    alone = load_contestants(world.softcam, None, world.manifest, device="cpu")
    assert list(alone.networks) == list(alone.fingerprints) == ["softcam"]


@pytest.mark.parametrize("name", ["softcam", "black_box", "", "a:b", "a b", "a@b", "a/b"])
def test_names_that_others_cannot_have(world: Any, name: str) -> None:
    with pytest.raises(RunError, match=f"not to be softcam or black_box, but got {name!r}"):
        load_contestants(world.softcam, None, world.manifest, device="cpu", others={name: world.sparse})


def test_names_that_others_can_have(world: Any) -> None:
    models = load_contestants(
        world.softcam, None, world.manifest, device="cpu", others={"L1-sparse_2": world.sparse, "same": world.softcam}
    )
    assert list(models.others) == ["L1-sparse_2", "same"]


@pytest.mark.parametrize("different", ["preprocessing", "classes"])
def test_another_model_of_another_task_is_refused_by_name(world: Any, different: str) -> None:
    given = {"preprocessing": Preprocessing(size=64).to_dict(), "classes": world.classes}
    given[different] = Preprocessing(size=32).to_dict() if different == "preprocessing" else ("defect", "intact")
    path = save(load(world.sparse), world.folder / f"other_{different}", **given)
    with pytest.raises(RunError, match=f"Expected sparse to share the model's {different}"):
        load_contestants(world.softcam, None, world.manifest, device="cpu", others={"sparse": path})


def test_a_black_box_is_no_other_model(world: Any) -> None:
    with pytest.raises(SoftCAMError, match=r"black.box"):
        load_contestants(world.softcam, None, world.manifest, device="cpu", others={"twin": world.black_box})


def test_a_single_class_is_refused(world: Any) -> None:
    model = load(world.softcam)
    model.reset_classifier(1)
    model.conversion = replace(model.conversion, num_classes=1)
    path = save(model, world.folder / "single", classes=["defect"], preprocessing=Preprocessing(size=64).to_dict())
    with pytest.raises(RunError, match="at least two classes, but got 1"):
        load_contestants(path, None, replace(world.manifest, classes=("defect",)), device="cpu")
