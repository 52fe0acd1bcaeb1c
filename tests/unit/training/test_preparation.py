from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from softcam.bundle import save
from softcam.data import ImageDataset, Manifest
from softcam.errors import BundleError, RecipeError, SoftCAMWarning, UnsupportedModelError
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM
from softcam.training import Recipe
from softcam.training.preparation import choose_preprocessing, create_start, load_manifest, prepare_features

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def with_model(values: dict[str, Any], **model: Any) -> Recipe:
    return Recipe.from_dict({**values, "model": {**values["model"], **model}})


def test_a_table_is_read_from_its_path(recipe: Recipe, manifest: Manifest, tmp_path: Path) -> None:
    assert load_manifest(recipe, tmp_path).digest() == manifest.digest()


def test_a_recipe_replaces_values_of_the_backbone(values: dict[str, Any]) -> None:
    values["data"] |= {"image_size": 48, "preprocessing": {"crop_fraction": 0.5}}
    ours = choose_preprocessing(Recipe.from_dict(values))
    assert (ours.size, ours.crop_fraction, ours.mean) == (48, 0.5, (0.485, 0.456, 0.406))
    values["data"] |= {"image_size": None, "preprocessing": {}}
    assert choose_preprocessing(Recipe.from_dict(values)).size == 160


def test_an_unknown_key_of_the_preprocessing_is_refused(values: dict[str, Any]) -> None:
    values["data"] |= {"preprocessing": {"crop_fracton": 0.5}}
    with pytest.raises(RecipeError, match=r"`data\.preprocessing` to be usable, but .*crop_fraction"):
        choose_preprocessing(Recipe.from_dict(values))


def test_both_twins_start_from_the_same_weights(values: dict[str, Any], manifest: Manifest) -> None:
    state = torch.get_rng_state()
    ours = create_start(with_model(values), manifest, IMAGES)
    theirs = create_start(with_model(values, kind="black_box"), manifest, IMAGES)
    assert isinstance(ours.model, SoftCAM)
    assert ours.model.conversion.exact
    assert ours.fingerprint == theirs.fingerprint
    with torch.no_grad():
        assert torch.allclose(ours.model.eval()(IMAGES), theirs.model.eval()(IMAGES), atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_new_head_is_small_and_another_is_kept(values: dict[str, Any], manifest: Manifest) -> None:
    def head(**model: Any) -> torch.Tensor:
        return create_start(with_model(values, kind="black_box", **model), manifest, IMAGES).model.classifier.weight

    assert 0.005 < head().std().item() < 0.02
    assert head(new_head=False).std().item() > 0.1


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "torchvision:squeezenet1_1"])
def test_the_head_is_found_in_other_networks(values: dict[str, Any], manifest: Manifest, backbone: str) -> None:
    images = torch.randn(2, 3, 64, 64)

    def spread(new_head: bool) -> float:
        recipe = with_model(values, kind="black_box", backbone=backbone, new_head=new_head)
        with torch.no_grad():
            return float(create_start(recipe, manifest, images).model.eval()(images).std())

    assert spread(new_head=True) != spread(new_head=False)


def test_a_head_that_cannot_be_exact_is_copied_with_a_warning_or_refused(
    values: dict[str, Any], manifest: Manifest
) -> None:
    mobile = {"backbone": "timm:mobilenetv3_small_050"}
    with pytest.warns(SoftCAMWarning, match="_050 to keep its logits, but its head cannot: the head's"):
        model = create_start(with_model(values, **mobile), manifest, IMAGES).model
    assert isinstance(model, SoftCAM)
    assert (model.conversion.head, model.conversion.exact) == ("pointwise", False)
    with pytest.raises(UnsupportedModelError, match="Its maps cannot average to the same logits"):
        create_start(with_model(values, **mobile, exact=True), manifest, IMAGES)
    linear = create_start(with_model(values, **mobile, head="linear"), manifest, IMAGES).model
    assert isinstance(linear, SoftCAM)
    assert linear.conversion.head == "linear"


def test_the_evidence_layer_goes_where_the_recipe_says(values: dict[str, Any], manifest: Manifest) -> None:
    def start(**model: Any) -> SoftCAM:
        found = create_start(with_model(values, **model), manifest, IMAGES).model
        assert isinstance(found, SoftCAM)
        return found

    assert start().conversion.grid == (2, 2)
    assert start(map_stride=16).conversion.grid == (4, 4)
    early = start(at=[16])
    assert (early.conversion.grid, early.conversion.head) == ((4, 4), "pointwise")
    assert start(at=[16], layers=1).conversion.head == "linear"
    assert start(at=["blocks.1"]).conversion.places == ("blocks.1",)
    assert len(start(at=[8, 16]).conversion.places) == 2


def test_the_seed_decides_a_new_evidence_layer(values: dict[str, Any], manifest: Manifest) -> None:
    first, again = (create_start(with_model(values, at=[16]), manifest, IMAGES).model for _ in range(2))
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"at": [0]}, r"`model\.at` to be strides >= 1"),
        ({"at": [1.5]}, r"`model\.at\[0\]` to be of type int"),
        ({"layers": 2}, r"`model\.layers` to be given together with model\.at"),
        ({"layers": 0, "at": [16]}, r"`model\.layers` to be >= 1"),
        ({"map_stride": 0}, r"`model\.map_stride` to be >= 1"),
        ({"head": "round"}, r"`model\.head` to be one of auto"),
    ],
)
def test_a_form_that_cannot_be_is_refused(values: dict[str, Any], model: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_model(values, **model)


def test_a_run_goes_on_from_a_bundle(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> None:
    black_box = create_start(with_model(values, kind="black_box"), manifest, IMAGES).model
    save(black_box, tmp_path / "box", classes=manifest.classes)
    start = create_start(with_model(values, weights=str(tmp_path / "box")), manifest, IMAGES)
    with torch.no_grad():
        assert torch.allclose(start.model.eval()(IMAGES), black_box.eval()(IMAGES), atol=1e-5)
    save(start.model, tmp_path / "model", classes=manifest.classes)
    again = create_start(with_model(values, weights=str(tmp_path / "model")), manifest, IMAGES)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(IMAGES), start.model(IMAGES))
    with pytest.raises(RecipeError, match="nothing beside `backbone` and `weights`"):
        create_start(with_model(values, weights=str(tmp_path / "model"), at=[16]), manifest, IMAGES)
    save(start.model, tmp_path / "other", classes=("spot", "dark"))
    with pytest.raises(RecipeError, match="a bundle with the classes of the data"):
        create_start(with_model(values, weights=str(tmp_path / "other")), manifest, IMAGES)
    wrong = with_model(values, weights=str(tmp_path / "box"), backbone="timm:test_resnet")
    with pytest.raises(BundleError, match="tensors of the model"):
        create_start(wrong, manifest, IMAGES)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_run_begins_from_a_file_of_weights(
    values: dict[str, Any], manifest: Manifest, tmp_path: Path, suffix: str
) -> None:
    donor = create_start(with_model(values, kind="black_box", new_head=False), manifest, IMAGES).model
    state = {f"module.{name}": tensor.contiguous() for name, tensor in donor.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 1, "state_dict": state}, path)

    def start(**model: Any) -> torch.nn.Module:
        settings = {"kind": "black_box", "weights": str(path), **model}
        return create_start(with_model({**values, "seed": 1}, **settings), manifest, IMAGES).model.eval()

    fresh = start()
    assert torch.equal(fresh.conv_stem.weight, donor.conv_stem.weight)
    assert fresh.classifier.weight.std() < 0.02 < donor.classifier.weight.std()
    with torch.no_grad():
        assert torch.equal(start(new_head=False)(IMAGES), donor.eval()(IMAGES))
        assert torch.allclose(start(new_head=False, kind="softcam")(IMAGES), donor(IMAGES), atol=1e-5)
    with pytest.raises(BundleError, match="Name the backbone that the file was made with"):
        start(backbone="timm:test_resnet")


def test_a_path_without_weights_is_refused(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="or a file of weights, but there is nothing at"):
        create_start(with_model(values, weights=str(tmp_path / "gone.pth")), manifest, IMAGES)


def test_the_seed_decides_the_weights(values: dict[str, Any], manifest: Manifest) -> None:
    other = {**values, "seed": 1}
    assert (
        create_start(with_model(values), manifest, IMAGES).fingerprint
        != create_start(with_model(other), manifest, IMAGES).fingerprint
    )


def files(values: dict[str, Any], manifest: Manifest, folder: Path, **changes: Any) -> set[str]:
    recipe = Recipe.from_dict({**values, "stages": [{"epochs": 1, "trunk": "blocks.1"}], **changes})
    preprocessing = Preprocessing(size=32)
    datasets = {split: ImageDataset(manifest.subset(split), preprocessing) for split in ("train", "val")}
    start = create_start(recipe, manifest, IMAGES)
    paths = prepare_features(start, recipe, datasets, folder)
    rows = {split: len(np.load(path, mmap_mode="r")) for split, path in paths.items()}
    assert rows == {"train": 24 * recipe.stages[0].views, "val": 8}
    return {path.name for path in folder.glob("*.npy")}


def test_the_cache_is_shared_by_twins_and_renewed_when_it_must_be(
    values: dict[str, Any], manifest: Manifest, tmp_path: Path
) -> None:
    both = files(values, manifest, tmp_path, penalty={"l1": 1.0})
    assert len(both) == 2
    model = {**values["model"], "kind": "black_box"}
    assert files(values, manifest, tmp_path, model=model, optimizer={"lr": 1.0}) == both
    more = files(values, manifest, tmp_path, stages=[{"epochs": 1, "trunk": "blocks.1", "views": 2}])
    assert {name.split("-")[0] for name in more - both} == {"train"}
    data = {**values["data"], "augmentation": {"hflip": True}}
    augmented = files(values, manifest, tmp_path, data=data)
    assert {name.split("-")[0] for name in augmented - more} == {"train"}
    deeper = files(values, manifest, tmp_path, stages=[{"epochs": 1, "trunk": "blocks.2"}])
    assert {name.split("-")[0] for name in deeper - augmented} == {"train", "val"}
    reseeded = files(values, manifest, tmp_path, seed=1)
    assert {name.split("-")[0] for name in reseeded - deeper} == {"train", "val"}
