"""What every drawn download promises."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from softcam.cli import main
from softcam.data.synthesis import LAYOUTS, SynthesisSettings, default_size, synthesize, synthesize_layout
from softcam.data.synthesis.layouts import Layout
from softcam.data.synthesis.layouts.layout import choose, pick
from softcam.errors import ManifestError

SMALL = SynthesisSettings(images=12, size=64)


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request: pytest.FixtureRequest) -> Layout:
    if request.param.name == "rsna":
        pytest.importorskip("pydicom", reason="DICOM files need the extra `dicom`")
    found: Layout = request.param
    return found


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def list_images(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name in files if name.endswith((".jpeg", ".dcm")))


def test_a_seed_draws_the_same_files(layout: Layout, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = synthesize_layout(layout.name, tmp_path / "a", SMALL, progress=lambda *done: seen.append(done))
    assert first == tmp_path / "a"
    assert seen == [(done, 12) for done in range(1, 13)]
    files = read_files(first)
    assert files == read_files(synthesize_layout(layout.name, tmp_path / "b", SMALL))
    assert len(list_images(files)) == 12
    assert {name for name in files if "/" not in name} == {"synthesis.json", *layout.tables}


def test_every_setting_changes_the_images(layout: Layout, tmp_path: Path) -> None:
    plain = read_files(synthesize_layout(layout.name, tmp_path / "plain", SMALL))
    for change in ({"seed": 1}, {"difficulty": "hard"}, {"size": 72}):
        settings = dataclasses.replace(SMALL, **change)
        other = read_files(synthesize_layout(layout.name, tmp_path / str(change), settings))
        assert {plain[name] for name in list_images(plain)} != {other[name] for name in list_images(other)}, change


def test_a_larger_set_begins_with_the_smaller_one(layout: Layout, tmp_path: Path) -> None:
    few = read_files(synthesize_layout(layout.name, tmp_path / "few", SMALL))
    more = read_files(synthesize_layout(layout.name, tmp_path / "more", dataclasses.replace(SMALL, images=14)))
    assert {name: more[name] for name in list_images(few)} == {name: few[name] for name in list_images(few)}
    for name in layout.tables:
        assert more[name].startswith(few[name])


def test_begun_work_goes_on_and_ends_alike(layout: Layout, tmp_path: Path) -> None:
    whole = read_files(synthesize_layout(layout.name, tmp_path, SMALL))
    images = list_images(whole)
    for name in (*images[::2], *layout.tables):
        (tmp_path / name).unlink()
    before = (tmp_path / images[1]).stat().st_mtime_ns
    synthesize_layout(layout.name, tmp_path, SMALL)
    assert read_files(tmp_path) == whole
    assert (tmp_path / images[1]).stat().st_mtime_ns == before


def test_other_content_is_left_alone(layout: Layout, tmp_path: Path) -> None:
    synthesize("lesions", tmp_path / "set", SMALL)
    with pytest.raises(ManifestError, match="begun with the same settings"):
        synthesize_layout(layout.name, tmp_path / "set", SMALL)


def test_shortcuts_are_refused(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"Expected `shortcut` to be False for {layout.name}, but got True"):
        synthesize_layout(layout.name, tmp_path / "set", dataclasses.replace(SMALL, shortcut=True))
    assert not (tmp_path / "set").exists()


def test_unknown_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `name` to be a layout \(kaggle-dr, .*\), but got 'lesions'"):
        synthesize_layout("lesions", tmp_path / "set", SMALL)


def test_default_sizes_are_those_of_the_downloads() -> None:
    sizes = {name: default_size(name) for name in ("kaggle-dr", "retinal-oct", "rsna", "lesions")}
    assert sizes == {"kaggle-dr": 900, "retinal-oct": 496, "rsna": 1024, "lesions": 224}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [10, 100, 1000])
def test_choices_have_their_shares_however_few_there_are(seed: int, count: int) -> None:
    shares, settings = {"a": 1, "b": 3, "c": 6}, SynthesisSettings(seed=seed)
    found = Counter(choose(shares, settings, number) for number in range(count))
    for choice, share in shares.items():
        assert abs(found[choice] - count * share / 10) <= 2


def test_choices_begin_elsewhere_for_another_seed() -> None:
    shares = {"a": 1, "b": 1}
    first, second = ([choose(shares, SynthesisSettings(seed=seed), n) for n in range(8)] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(("at", "expected"), [(0, "a"), (0.2499, "a"), (0.25, "b"), (0.9999, "b")])
def test_each_choice_takes_its_part_of_the_line(at: float, expected: str) -> None:
    assert pick({"a": 1, "b": 3}, at) == expected


def test_the_command_draws_a_download(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "synthesize", layout.name, "--out", str(tmp_path / "set"), "--images", "10", "--size", "64"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"10 images: {tmp_path / 'set'}\n"
    record = json.loads((tmp_path / "set" / "synthesis.json").read_text())
    assert (record["what"], record["images"], record["size"]) == (layout.name, 10, 64)
    assert main([*command, "--shortcut"]) == 2
    assert "Expected `shortcut` to be False" in capsys.readouterr().err
