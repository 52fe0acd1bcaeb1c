from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import softcam
from softcam.imaging import Geometry, Preprocessing, encode_png
from softcam.nn import convert
from softcam.predict import Prediction, Predictor
from softcam.viewer import build_page, describe_model, list_static, read_index, read_static
from softcam.viewer.page import join_modules

HOSTILE = "</script><script>alert(1)</script><!-- \u2028"
MODULES = [name for name in list_static() if name.endswith(".js") and "/" not in name]
TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+|\[[^\]]*\]|\{[^}]*\})", re.MULTILINE)


def make(name: str = "a") -> Prediction:
    maps = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    return Prediction(
        f"{name}.png",
        "ok",
        (name, "b"),
        predicted=name,
        probabilities=np.array([0.5, 0.5], np.float32),
        logits=maps.mean((1, 2)),
        maps=maps,
        geometry=Geometry(30, 40, 30, 40, 1, 1, 0, 0),
        sum_error=0.0,
    )


def test_one_page_needs_nothing_else() -> None:
    page = softcam.view(make()).page
    # Comments of the libraries may name addresses; nothing may load one.
    assert re.findall(r"<(?:link|img|iframe|script)[^>]*\b(?:src|href)=\"(?!data:)[^\"]*\"", page) == []
    assert re.findall(r"^\s*(?:import|export)\b.*", page, re.MULTILINE) == []
    assert "@import" not in page
    assert re.findall(r"url\((?!['\"]?data:)", page) == []
    assert "default-src 'none'" in page


def test_data_cannot_break_out() -> None:
    page = softcam.view(make(HOSTILE)).page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 3
    data = re.search(r'id="softcam-embedded">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["predictions"][0]["classes"][0] == HOSTILE


def test_a_notebook_gets_it_in_a_frame() -> None:
    view = softcam.view(make(HOSTILE), height=400)
    text = view._repr_html_()
    assert "<script" not in text
    assert "height:400px" in text
    assert 'sandbox="allow-scripts' in text
    assert "allow-same-origin" not in text


def test_the_service_is_not_needed() -> None:
    program = "import sys, softcam; softcam.view; print(*sorted(name.split('.')[0] for name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(found).isdisjoint({"fastapi", "orjson", "uvicorn", "pydicom", "timm", "pandas"})


def test_top_level_names_are_unique() -> None:
    names = Counter(name for module in MODULES for name in TOP_LEVEL.findall(read_static(module).content.decode()))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []
    assert not any(name.startswith(("[", "{")) for name in names)


def test_every_module_is_part_of_the_page() -> None:
    joined = join_modules()
    for module in MODULES:
        names = TOP_LEVEL.findall(read_static(module).content.decode())
        assert all(f" {name}" in joined for name in names)
    assert "\nimport {" not in joined
    assert "\nexport " not in joined


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_read_no_html(module: str) -> None:
    text = read_static(module).content.decode()
    assert len(text.splitlines()) <= 400
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
    assert text.startswith("/**")


def test_only_files_of_the_page_are_read() -> None:
    assert read_index().media_type.startswith("text/html")
    assert read_static("main.js").media_type.startswith("text/javascript")
    assert b"Mike Bostock" in read_static("vendor/LICENSE-d3.txt").content
    for name in ("../page.py", "index.html/..", "/etc/passwd", "", "vendor"):
        with pytest.raises(KeyError):
            read_static(name)


def test_the_index_names_only_files_that_are_there() -> None:
    named = re.findall(r'(?:src|href)="static/([^"]+)"', read_index().content.decode())
    assert set(named) <= set(list_static())
    assert "style=" not in read_index().content.decode()


def test_numbers_must_be_finite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        build_page({"models": [], "predictions": [{"sum_error": float("nan")}]})


def read_data(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'id="softcam-embedded">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_images_lie_under_the_maps(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    for image in (pixels, tmp_path / "a.png", str(tmp_path / "a.png"), encode_png(pixels)):
        for one, several in ((make(), image), ([make()], [image])):
            (record,) = read_data(softcam.view(one, several).page)["predictions"]
            assert record["preview"] is not None
            assert record["name"] == "a.png"
    batch = np.zeros((2, 30, 40, 3), np.uint8)
    assert len(read_data(softcam.view([make(), make()], batch).page)["predictions"]) == 2
    (record,) = read_data(softcam.view(make()).page)["predictions"]
    assert record["preview"] is None


def test_failed_predictions_are_listed() -> None:
    failed = Prediction("broken.png", "failed", ("a",), reason="file is empty")
    records = read_data(softcam.view([failed, make()]).page)["predictions"]
    assert records[0] == {"name": "broken.png", "status": "failed", "reason": "file is empty"}


def test_numbers_of_images_must_agree() -> None:
    with pytest.raises(ValueError, match="one for each of 2 predictions, but got 1"):
        softcam.view([make(), make()], [np.zeros((30, 40), np.uint8)])
    with pytest.raises(ValueError, match="at least one prediction, but got none"):
        softcam.view([])


def test_saves_one_file(tmp_path: Path) -> None:
    view = softcam.view(make())
    assert view.save(tmp_path / "deep" / "view.html").read_text(encoding="utf-8") == view.page


def test_a_predictor_tells_how_far_cells_see() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model = convert(network.eval())
    predictor = Predictor(model, preprocessing=Preprocessing(size=64), classes=["a", "b"])
    predictions = list(predictor([np.zeros((64, 64, 3), np.uint8)]))
    data = read_data(softcam.view(predictions, predictor=predictor, name="mine").page)
    (info,) = data["models"]
    assert info["receptive_field"] == [3, 3]
    assert info["grid"] == data["predictions"][0]["grid"]
    assert info["name"] == "mine"
    assert info == json.loads(json.dumps(describe_model(predictor, name="mine")))
