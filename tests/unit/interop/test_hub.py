from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard, ModelHubMixin, errors
from torch import nn

from softcam.bundle import Calibration, load, read_config, save, update
from softcam.errors import BundleError
from softcam.interop import HubSoftCAM, download_bundle
from softcam.nn import Augmented, Ensemble, SoftCAM, convert
from softcam.predict import Predictor

CLASSES = ("intact", "defect", "other")
FILES = ["README.md", "config.json", "model.safetensors"]
IMAGES = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def refused(kind: type[Exception], text: str = "Refused. ") -> Exception:
    """Return an error of the hub without the answer of a server that it carries."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


# A model


def test_is_the_model_it_was_made_of(model: SoftCAM) -> None:
    hub_model = HubSoftCAM(model, classes=CLASSES)
    assert isinstance(hub_model, SoftCAM)
    assert isinstance(hub_model, ModelHubMixin)
    assert hub_model.head is model.head
    assert hub_model.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(hub_model.evidence(IMAGES).maps, model.evidence(IMAGES).maps)
    assert hub_model.conversion == model.conversion


def test_modes_of_the_shared_modules_stay(model: SoftCAM) -> None:
    mixed = copy.deepcopy(model).train()
    mixed.head.eval()
    hub_model = HubSoftCAM(mixed)
    assert (hub_model.training, hub_model.features.training, hub_model.head.training) == (True, True, False)


def test_independent_classes_stay_so(toy: nn.Module, tmp_path: Path) -> None:
    HubSoftCAM(convert(toy, multi_label=True)).save_pretrained(tmp_path / "m")
    assert HubSoftCAM.from_pretrained(tmp_path / "m", model=toy).multi_label
    assert read_config(tmp_path / "m").task == "multilabel"


def test_a_black_box_is_refused(toy: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"SoftCAM model, but got Toy\. Convert it with softcam\.convert"):
        HubSoftCAM(toy)  # type: ignore[arg-type]


def test_an_ensemble_is_refused_with_what_to_do(model: SoftCAM) -> None:
    for several in (Ensemble([model, model]), Augmented(model, "flips")):
        with pytest.raises(TypeError, match=r"single model, but got (Ensemble|Augmented)\. Upload the folder"):
            HubSoftCAM(several)


def test_a_copy_can_be_saved(model: SoftCAM, tmp_path: Path) -> None:
    copied = copy.deepcopy(HubSoftCAM(model, classes=CLASSES))
    copied.save_pretrained(tmp_path / "m")
    assert read_config(tmp_path / "m").classes == CLASSES


# Folders


def test_a_folder_gives_the_model_and_all_that_is_said_of_it(bundle: Path, model: SoftCAM) -> None:
    loaded = HubSoftCAM.from_pretrained(bundle)
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert not loaded.training
    assert loaded.classes == CLASSES
    assert loaded.thresholds == {"defect": 0.25}
    assert (loaded.preprocessing or {})["size"] == 160


def test_saved_again_it_is_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    HubSoftCAM.from_pretrained(bundle).save_pretrained(tmp_path / "again")
    assert names(tmp_path / "again") == FILES
    assert read_config(tmp_path / "again") == read_config(bundle)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()


@pytest.fixture
def calibrated(bundle: Path) -> Path:
    calibration = Calibration(temperature=1.5, n=100, split="val", data_digest="a" * 64, thresholds={"defect": 0.25})
    return update(bundle, replace(read_config(bundle), thresholds={"defect": 0.3}, calibration=calibration))


def test_a_calibration_comes_along(calibrated: Path, tmp_path: Path) -> None:
    HubSoftCAM.from_pretrained(calibrated).save_pretrained(tmp_path / "again")
    assert read_config(tmp_path / "again") == read_config(calibrated)


def test_other_weights_are_not_called_calibrated(calibrated: Path, tmp_path: Path) -> None:
    loaded = HubSoftCAM.from_pretrained(calibrated)
    with torch.no_grad():
        next(loaded.parameters()).mul_(2)
    loaded.save_pretrained(tmp_path / "trained")
    config = read_config(tmp_path / "trained")
    assert config.calibration is None
    assert config.thresholds == {"defect": 0.25}


def test_the_model_of_a_training_run_is_found(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copytree(bundle, tmp_path / "run" / "model")
    assert HubSoftCAM.from_pretrained(tmp_path / "run").classes == CLASSES


def test_what_was_saved_is_a_bundle_like_any_other(model: SoftCAM, tmp_path: Path) -> None:
    assert HubSoftCAM(model, classes=CLASSES).save_pretrained(tmp_path / "m") is None
    assert torch.equal(load(tmp_path / "m")(IMAGES), model(IMAGES))
    save(model, tmp_path / "m")
    assert names(tmp_path / "m") == FILES


def test_a_module_of_the_users_own_is_handed_in(toy: nn.Module, tmp_path: Path) -> None:
    own = convert(toy)
    HubSoftCAM(own).save_pretrained(tmp_path / "own")
    with pytest.raises(BundleError, match="Expected `model` to be given"):
        HubSoftCAM.from_pretrained(tmp_path / "own")
    assert torch.equal(HubSoftCAM.from_pretrained(tmp_path / "own", model=toy)(IMAGES), own(IMAGES))


def test_a_failed_save_leaves_what_was_there(bundle: Path, toy: nn.Module) -> None:
    before = {name: (bundle / name).read_bytes() for name in FILES}
    broken = convert(toy)
    broken.head.classifier.weight.data[0] = torch.nan
    with pytest.raises(BundleError, match="finite weights"):
        HubSoftCAM(broken).save_pretrained(bundle)
    with pytest.raises(BundleError, match="`classes` to name the 2 outputs"):
        HubSoftCAM(convert(toy), classes=CLASSES).save_pretrained(bundle)
    assert {name: (bundle / name).read_bytes() for name in FILES} == before


def test_other_content_is_not_touched(model: SoftCAM, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="new, empty or a bundle"):
        HubSoftCAM(model).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["absent/folder/deep", "./absent"])
def test_says_that_there_is_no_folder(name: str) -> None:
    with pytest.raises(BundleError, match=f"find '{name}' on the hub.*Pass an existing folder, or the name of a repos"):
        HubSoftCAM.from_pretrained(name)


# Model card


def test_the_card_is_headed_by_what_the_hub_reads(bundle: Path, tmp_path: Path) -> None:
    HubSoftCAM.from_pretrained(bundle).save_pretrained(
        tmp_path / "m", model_card_kwargs={"tags": ["radiology"], "language": "en", "datasets": ["org/data"]}
    )
    card = ModelCard.load(tmp_path / "m" / "README.md")
    assert card.data.to_dict() == {
        "datasets": ["org/data"],
        "language": "en",
        "library_name": "softcam",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": [
            "class-activation-maps", "explainable-ai", "interpretability", "model_hub_mixin", "radiology", "softcam",
        ],
    }  # fmt: skip
    assert card.text.strip() == (bundle / "README.md").read_text().strip()


def test_a_license_is_shown_only_if_it_is_known(model: SoftCAM) -> None:
    assert "license:" not in str(HubSoftCAM(model).generate_model_card())
    assert "license: mit" in str(HubSoftCAM(model, provenance={"license": "mit"}).generate_model_card())
    given = HubSoftCAM(model, provenance={"license": "mit"}).generate_model_card(license="cc-by-4.0")
    assert "license: cc-by-4.0" in str(given)


def test_the_card_of_a_repository_says_how_to_load_from_it(model: SoftCAM, toy: nn.Module) -> None:
    assert 'HubSoftCAM.from_pretrained("org/name")\n' in str(HubSoftCAM(model).generate_model_card(repo_id="org/name"))
    own = HubSoftCAM(convert(toy)).generate_model_card(repo_id="org/name")
    assert 'HubSoftCAM.from_pretrained("org/name", model=network)' in str(own)
    assert "from_pretrained" not in str(HubSoftCAM(model).generate_model_card())


# Up


def test_push_uploads_the_bundle_in_one_commit(model: SoftCAM, fake_hub: Any, tmp_path: Path) -> None:
    hub_model = HubSoftCAM(model, classes=CLASSES, provenance={"license": "mit"})
    url = hub_model.push_to_hub("org/name", private=True, branch="v1", create_pr=True)
    assert url == "https://hub/org/name/commit/1"
    assert fake_hub.created == [{"repo_id": "org/name", "private": True, "exist_ok": True}]
    (upload,) = fake_hub.uploaded
    assert (upload["revision"], upload["create_pr"], upload["repo_type"]) == ("v1", True, "model")
    assert upload["commit_message"] == "Upload a SoftCAM model"
    folder = tmp_path / "hub" / "org" / "name"
    assert names(folder) == FILES
    assert read_config(folder).classes == CLASSES
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: softcam\nlicense: mit\npipeline_tag: image-classification\ntags:\n")
    assert 'download_bundle("org/name")' in card


def test_what_was_pushed_comes_back(model: SoftCAM, fake_hub: Any) -> None:
    HubSoftCAM(model, classes=CLASSES).push_to_hub("org/name", model_card_kwargs={"license": "mit"})
    loaded = HubSoftCAM.from_pretrained("org/name")
    assert torch.equal(loaded.evidence(IMAGES).maps, model.evidence(IMAGES).maps)
    assert loaded.classes == CLASSES


def test_saving_can_push_as_well(model: SoftCAM, fake_hub: Any, tmp_path: Path) -> None:
    hub_model = HubSoftCAM(model)
    url = hub_model.save_pretrained(tmp_path / "squares", push_to_hub=True, commit_message="First")
    assert url == "https://hub/squares/commit/1"
    assert fake_hub.uploaded[0]["commit_message"] == "First"
    assert names(tmp_path / "squares") == FILES
    hub_model.save_pretrained(tmp_path / "squares", push_to_hub=True, repo_id="org/squares")
    assert fake_hub.uploaded[1]["repo_id"] == "org/squares"


def test_no_repository_is_made_for_a_model_that_cannot_be_saved(toy: nn.Module, fake_hub: Any) -> None:
    with pytest.raises(BundleError, match="`classes` to name the 2 outputs"):
        HubSoftCAM(convert(toy), classes=CLASSES).push_to_hub("org/name")
    broken = convert(toy)
    broken.head.classifier.weight.data[0] = torch.nan
    with pytest.raises(BundleError, match="finite weights"):
        HubSoftCAM(broken).push_to_hub("org/name")
    assert fake_hub.created == []


# Down


def test_download_fetches_the_files_of_a_bundle_and_no_others(bundle: Path, fake_hub: Any, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "hub" / "org" / "name")
    options = {"revision": "v1", "token": "t", "cache_dir": tmp_path, "local_files_only": True, "force_download": True}
    assert download_bundle("org/name", **options) == tmp_path / "hub" / "org" / "name"  # type: ignore[arg-type]
    expected = {"repo_id": "org/name", "allow_patterns": FILES, "library_name": "softcam", **options}
    assert fake_hub.downloads == [expected]
    HubSoftCAM.from_pretrained("org/name", **options)  # type: ignore[arg-type]
    assert fake_hub.downloads[1] == expected


def test_a_predictor_takes_what_was_downloaded(bundle: Path, fake_hub: Any, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "hub" / "org" / "name")
    assert Predictor(download_bundle("org/name")).classes == CLASSES


def test_weights_that_were_changed_are_refused(bundle: Path, fake_hub: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "hub" / "org" / "name")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["head.classifier.bias"] += 1e-3
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(BundleError, match="Expected weights with fingerprint"):
        HubSoftCAM.from_pretrained("org/name")


def test_a_pickle_is_not_read(bundle: Path, fake_hub: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "hub" / "org" / "name")
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(BundleError, match="can run any code"):
        HubSoftCAM.from_pretrained("org/name")


def test_entries_of_the_description_are_no_arguments(bundle: Path, fake_hub: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "hub" / "org" / "name")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model": "elsewhere", "token": "mine"}))
    with pytest.raises(BundleError, match=r"Expected 'org/name' to hold a softcam bundle.*'model'"):
        HubSoftCAM.from_pretrained("org/name")


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"model_type": "bert"}'])
def test_says_that_a_repository_holds_no_bundle(content: str | None, fake_hub: Any, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "org" / "name"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(BundleError, match=r"Expected 'org/name' to hold a softcam bundle, but it does not\. Expected"):
        download_bundle("org/name")


# Trouble

UNREACHABLE = errors.HTTPError("[Errno 111] Connection refused")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UNREACHABLE, r"Connection refused\. Check the network, HF_ENDPOINT and HF_HUB_OFFLINE"),
        (errors.OfflineModeIsEnabled("offline mode is enabled"), "offline mode is enabled. Check the network"),
        (errors.LocalEntryNotFoundError("Cannot find\nmore"), r"Cannot find\. It is not in the cache: leave out"),
        (refused(errors.RepositoryNotFoundError), r"Refused\. Check the name; for a private one, log in with `hf auth"),
        (refused(errors.GatedRepoError), "Accept the terms on its page; then log in"),
        (refused(errors.RevisionNotFoundError), "Check the branch, tag or commit"),
        (
            refused(errors.HfHubHTTPError, "403 Forbidden"),
            "403 Forbidden. If it was refused, log in with `hf auth login`",
        ),
        (errors.LocalTokenNotFoundError("Token is required"), "Token is required. First log in"),
        (refused(errors.HfHubHTTPError, ""), "HfHubHTTPError. If it was refused"),
    ],
)
def test_says_what_to_do_when_the_hub_does_not_answer(
    error: Exception, message: str, offline: Callable[[Exception], None], model: SoftCAM
) -> None:
    offline(error)
    with pytest.raises(BundleError, match=f"Expected to find 'org/name' on the hub, but: .*{message}"):
        HubSoftCAM.from_pretrained("org/name")
    with pytest.raises(BundleError, match="Expected to push to 'org/name', but: "):
        HubSoftCAM(model).push_to_hub("org/name")


def test_a_full_disk_is_not_called_a_network(offline: Callable[[Exception], None]) -> None:
    offline(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left on device"):
        download_bundle("org/name")


def test_nothing_is_asked_of_the_hub_about_a_folder(bundle: Path, offline: Callable[[Exception], None]) -> None:
    offline(UNREACHABLE)
    assert HubSoftCAM.from_pretrained(bundle).classes == CLASSES


def test_says_which_extra_is_missing() -> None:
    program = "import sys; sys.modules['huggingface_hub'] = None\nfrom softcam.interop import HubSoftCAM"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingExtraError: Expected the package 'huggingface_hub' to be installed" in done.stderr
    assert "softcam[hub]" in done.stderr
