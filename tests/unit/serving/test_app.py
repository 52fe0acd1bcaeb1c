"""The service's answers equal the library's, and every refusal says why."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import softcam
from softcam.attribution import attribute
from softcam.imaging import decode_image
from softcam.predict import Checks
from softcam.records import check_chain, load_verifier, read_chain


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> softcam.Predictor:
    return softcam.Predictor(bundle, backend="torch")


def upload(content: bytes) -> dict[str, Any]:
    return {"files": {"file": ("any name.png", content)}}


def test_an_explanation_is_the_predictors(client: Any, png: bytes, predictor: softcam.Predictor) -> None:
    response = client.post("/v1/explain", **upload(png))
    assert response.status_code == 200
    answer = response.json()
    expected = next(iter(predictor([png])))
    maps = np.array(answer["maps"], np.float32)
    assert maps.shape == (3, *answer["grid"])
    np.testing.assert_allclose(maps, expected.maps, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps.mean((1, 2)), answer["logits"], rtol=1e-5, atol=1e-6)
    assert answer["predicted"] == expected.predicted
    assert answer["classes"] == ["healthy", "early", "late"]
    assert sum(answer["probabilities"]) == pytest.approx(1)
    assert answer["geometry"] == expected.geometry.to_dict()
    assert answer["sum_error"] < 1e-5
    assert answer["digest"] == expected.digest
    assert answer["model"] == {"name": "retina", "fingerprint": predictor.fingerprint}
    assert answer["preview"] is None
    assert {"decode", "queue", "model"} == {
        part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")
    }


def test_a_picture_comes_along_on_request(client: Any, png: bytes) -> None:
    answer = client.post("/v1/explain?preview=true", **upload(png)).json()
    assert (answer["preview"]["width"], answer["preview"]["height"], answer["preview"]["depth"]) == (120, 90, 8)


def test_several_files_are_answered_in_order(client: Any, png: bytes, make_image: Callable[..., bytes]) -> None:
    other = make_image(np.zeros((64, 64), np.uint8))
    files = [("file", ("a", png)), ("file", ("b", b"no image")), ("file", ("c", other))]
    answers = client.post("/v1/explain", files=files).json()
    assert [answer["status"] for answer in answers] == ["ok", "failed", "ok"]
    assert answers[0]["digest"] == decode_image(png).digest
    assert answers[2]["digest"] == decode_image(other).digest
    assert "not a readable" in answers[1]["reason"]


def test_frames_are_chosen_by_number(client: Any, make_dicom: Callable[..., bytes]) -> None:
    frames = np.random.default_rng(0).integers(0, 4096, (4, 40, 40)).astype(np.uint16)
    content = make_dicom(frames)
    second, third = (client.post(f"/v1/explain?frame={n}", **upload(content)).json() for n in (2, 3))
    assert (second["frame"], second["frames"], third["frame"]) == (2, 4, 3)
    assert second["logits"] != third["logits"]
    assert client.post("/v1/explain", **upload(content)).status_code == 422
    assert client.post("/v1/explain?frame=5", **upload(content)).status_code == 422


def test_an_image_of_another_kind_is_refused_where_that_was_asked_for(
    serve: Callable[..., Any], client: Any, make_image: Callable[..., bytes]
) -> None:
    grey = upload(make_image(np.full((64, 64), 90, np.uint8)))
    warned = client.post("/v1/explain", **grey)
    assert warned.status_code == 200
    assert any("size" in warning for warning in warned.json()["warnings"])
    refused = serve(checks=Checks(size="refuse")).post("/v1/explain", **grey)
    assert refused.status_code == 422
    assert "size" in refused.json()["detail"]


def test_a_post_hoc_method_is_the_librarys(client: Any, png: bytes, predictor: softcam.Predictor) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="Grad-CAM comes with the extra `peers`")
    answer = client.post("/v1/attribute?method=grad_cam&target=2", **upload(png)).json()
    tensor, _ = predictor.preprocessing(decode_image(png))
    expected = attribute("grad_cam", predictor.model, tensor[None], torch.tensor([2]))[0].numpy()
    np.testing.assert_allclose(np.array(answer["map"], np.float32), expected, rtol=1e-4, atol=1e-6)
    assert (answer["title"], answer["target"], answer["grid"]) == ("Grad-CAM", 2, list(expected.shape))


@pytest.mark.parametrize(
    ("query", "text"), [("target=3", "0 to 2"), ("target=0&method=score_cam", "none of"), ("", "target")]
)
def test_a_method_needs_a_class(client: Any, png: bytes, query: str, text: str) -> None:
    response = client.post(f"/v1/attribute?{query}", **upload(png))
    assert response.status_code == 422
    assert text in response.json()["detail"]


def test_dicom_objects_come_as_an_archive(client: Any, make_dicom: Callable[..., bytes]) -> None:
    pytest.importorskip("highdicom", reason="DICOM objects come with the extra `dicom`")
    pydicom = pytest.importorskip("pydicom")
    content = make_dicom(
        np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16),
        PatientBirthDate="",
        PatientSex="",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.4",
        StudyID="",
        AccessionNumber="",
        StudyTime="",
        ReferringPhysicianName="",
        Modality="OT",
    )
    response = client.post("/v1/dicom?kinds=map&kinds=capture", **upload(content))
    assert response.status_code == 200, response.text
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert sorted(archive.namelist()) == ["capture.dcm", "map.dcm"]
    found = pydicom.dcmread(io.BytesIO(archive.read("map.dcm")))
    assert found.StudyInstanceUID == "1.2.3"
    assert found.Modality


def test_objects_are_made_of_dicom_alone(client: Any, png: bytes) -> None:
    response = client.post("/v1/dicom", **upload(png))
    assert (response.status_code, response.json()["type"]) == (422, "urn:softcam:problem:unusable")
    assert client.post("/v1/dicom?kinds=poem", **upload(png)).status_code == 422


def test_a_model_tells_what_it_is(client: Any, predictor: softcam.Predictor) -> None:
    info = client.get("/v1/model").json()
    assert info["fingerprint"] == predictor.fingerprint
    assert info["classes"] == list(predictor.classes)
    assert info["input"] == [3, 64, 64]
    assert info["architecture"] == "timm:resnet10t"
    assert info["limits"]["max_files"] == 32
    assert "grad_cam" in {method["name"] for method in info["methods"]}
    assert client.get("/v1/models").json() == {"default": "retina", "models": [info]}
    assert client.get("/v1/model?model=retina").json() == info
    unknown = client.get("/v1/model?model=other")
    assert unknown.status_code == 404
    assert "retina" in unknown.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b"x"}, 400),
        ({"content": b"--b\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ({"content": b"--b\r\n\r\n", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"files": {"other": b"x"}}, 422),
        ({"data": {"file": "text"}, "files": {"other": b"x"}}, 422),
        ({"files": {"file": ("a", b"")}}, 422),
        ({"files": {"file": ("a", b"words")}}, 415),
        ({"files": [("file", ("a", b"x"))] * 33}, 400),
        ({"files": {"file": ("a", b"x")}, "params": {"frame": "0"}}, 422),
        ({"files": {"file": ("a", b"x")}, "params": {"frame": "one"}}, 422),
    ],
)
def test_refusals_are_problems(client: Any, request_: dict[str, Any], status: int) -> None:
    response = client.post("/v1/explain", **request_)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_other_ways_are_closed(client: Any) -> None:
    assert client.get("/v1/explain").status_code == 405
    assert client.get("/v1/explain").headers["allow"] == "POST"
    assert client.get("/secret").status_code == 404
    for path in ("/static/../pyproject.toml", "/static/%2e%2e/%2e%2e/page.py", "/static//etc/passwd", "/static/"):
        assert client.get(path).status_code == 404, path


def test_the_page_and_its_files_are_there(client: Any) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name, media_type in (("main.js", "text/javascript"), ("viewer.css", "text/css")):
        assert f"static/{name}" in page.text
        assert client.get(f"/static/{name}").headers["content-type"].startswith(media_type)


def test_health_and_numbers(client: Any, png: bytes) -> None:
    client.post("/v1/explain", **upload(png))
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    numbers = client.get("/metrics").text
    assert 'softcam_images_total{model="retina",outcome="explained"}' in numbers
    assert 'softcam_requests_total{route="/v1/explain",status="200"}' in numbers


def test_predictions_are_stored_where_that_was_asked_for(
    serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, png: bytes
) -> None:
    folder = tmp_path_factory.mktemp("store") / "kept"
    client = serve(store=folder)
    answer = client.post("/v1/explain", **upload(png), headers={"x-request-id": "call-7"}).json()
    report = check_chain(folder / "records.jsonl", keys=[load_verifier(folder.parent / "keys" / "key.pub.pem")])
    assert (report.records, report.faults, report.signed) == (2, (), True)
    context, record = (found for found in read_chain(folder / "records.jsonl") if found)
    assert record.body["context"] == context.digest
    assert record.body["image"] == {"name": "call-7-0", "digest": answer["digest"], "frame": None}
    assert record.body["logits"] == answer["logits"]
    assert "any name" not in (folder / "records.jsonl").read_text(encoding="utf-8")
    with np.load(next(folder.rglob("call-7-0-*.npz"))) as kept:
        assert np.array_equal(kept["maps"], np.array(answer["maps"], np.float32))


def test_what_cannot_be_stored_is_not_answered(
    serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, png: bytes
) -> None:
    folder = tmp_path_factory.mktemp("store") / "kept"
    client = serve(store=folder)
    (folder / "evidence").rmdir()
    response = client.post("/v1/explain", **upload(png))
    assert (response.status_code, response.json()["type"]) == (507, "urn:softcam:problem:cannot-store")
