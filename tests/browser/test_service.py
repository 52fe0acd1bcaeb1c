"""The page before a real service: files go up, explanations come back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from softcam.imaging import encode_png
from softcam.predict import Predictor

Desk = Any


def make_file(name: str, seed: int = 0) -> dict[str, Any]:
    """Return an upload of a grey PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80)).astype(np.uint8)
    return {"name": name, "mimeType": "image/png", "buffer": encode_png(np.kron(pixels, np.ones((3, 3), np.uint8)))}


def upload(desk: Desk, *files: dict[str, Any] | Path) -> None:
    """Choose files and wait until each is explained or refused."""
    listed = desk.page.locator("#list li")
    before = listed.count()
    desk.page.locator("#files").set_input_files(list(files))
    desk.until(lambda: listed.count() > before)
    expect(desk.page.locator("#list li.queued, #list li.running")).to_have_count(0, timeout=30_000)
    desk.settle()


def test_an_upload_is_explained(open_service: Callable[..., Desk], bundles: dict[str, Path]) -> None:
    desk = open_service()
    file = make_file("one.png")
    upload(desk, file)
    (expected,) = Predictor(bundles["chest"], device="cpu", backend="torch")([file["buffer"]])
    assert desk.text("verdict-class") == expected.predicted
    record = desk.record()
    assert np.array(record["maps"], np.float32) == pytest.approx(expected.maps, abs=1e-4)
    assert record["geometry"] == expected.geometry.to_dict()
    assert record["preview"] is None
    assert desk.page.locator("#window-center").get_attribute("max") == "255"
    assert desk.page.locator("#welcome").is_hidden()
    assert desk.page.locator("#model-facts").inner_text().startswith("timm:test_resnet · 3 \u00d7 3 cells")
    assert desk.page.locator("#compare-section").is_visible()
    assert desk.page.locator("#export-dicom").is_hidden()


def test_the_page_asks_nobody_but_its_service(
    service: str, new_page: Callable[..., Page], open_service: Callable[..., Desk]
) -> None:
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
    page.goto(service)
    page.wait_for_selector("body[data-ready]")
    assert {url for url in asked if not url.startswith((service, "data:"))} == set()
    assert refused == []


def test_a_bad_file_does_not_stop_the_rest(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    bad = {"name": "<i>bad<i>.png", "mimeType": "image/png", "buffer": b"no image at all"}
    empty = {"name": "empty.png", "mimeType": "image/png", "buffer": b""}
    upload(desk, make_file("a.png", 1), bad, make_file("b.png", 2), empty, make_file("c.png", 3))
    assert desk.page.locator("#list li.ok").count() == 3
    failed = desk.page.locator("#list li.failed").all_inner_texts()
    assert failed[0].startswith("<i>bad<i>.png\n")
    assert len(failed[0].split("\n")[1]) > 10
    assert failed[1].startswith("empty.png\n")
    assert "2 failed" in desk.text("list-count")
    assert desk.page.locator("#notice").is_visible()
    desk.press("n")
    assert "could not be explained" in desk.text("welcome-title")


def test_files_can_be_dropped(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    script = """bytes => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'}));
        const options = {bubbles: true, cancelable: true, dataTransfer: data};
        window.dispatchEvent(new DragEvent('dragover', options));
        window.dispatchEvent(new DragEvent('drop', options));
    }"""
    desk.page.evaluate(script, list(make_file("x")["buffer"]))
    expect(desk.page.locator("#list li.ok")).to_have_count(1)
    assert "dropped.png" in desk.page.locator("#list").inner_text()


def test_two_uploads_at_most_are_in_flight(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    held: list[Route] = []
    most = []

    def hold(route: Route) -> None:
        held.append(route)
        most.append(len(held))

    desk.page.route("**/v1/explain*", hold)
    desk.page.locator("#files").set_input_files([make_file(f"{i}.png", i) for i in range(5)])
    while len(most) < 5:
        desk.until(lambda: len(held) > 0)
        desk.settle()
        held.pop(0).continue_()
        expect(desk.page.locator("#list li.ok")).to_have_count(len(most) - len(held))
    for route in held:
        route.continue_()
    expect(desk.page.locator("#list li.ok")).to_have_count(5)
    assert max(most) == 2


def test_the_first_image_sets_the_scale(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    alone = open_service()
    upload(alone, make_file("first.png", 1))
    expected = alone.page.locator("#limit").input_value()
    held: list[Route] = []
    desk.page.route("**/v1/explain*", lambda route: route.continue_() if held else held.append(route))
    desk.page.locator("#files").set_input_files([make_file("first.png", 1), make_file("second.png", 2)])
    expect(desk.page.locator("#list li.ok")).to_have_count(1)  # the second, since the first is held back
    held[0].continue_()
    expect(desk.page.locator("#list li.ok")).to_have_count(2)
    desk.settle()
    assert desk.page.locator("#limit").input_value() == expected


@pytest.mark.parametrize(
    ("status", "detail"), [(413, "the body is larger than the service takes"), (401, "a token is needed")]
)
def test_a_refusal_is_shown_with_its_reason(open_service: Callable[..., Desk], status: int, detail: str) -> None:
    desk = open_service()
    problem = json.dumps({"type": "about:blank", "title": "Refused", "status": status, "detail": detail})
    answer = {"status": status, "content_type": "application/problem+json", "body": problem}
    desk.page.route("**/v1/explain*", lambda route: route.fulfill(**answer))
    upload(desk, make_file("a.png"))
    assert desk.page.locator("#list li.failed").inner_text().split("\n") == ["a.png", detail]
    assert desk.text("welcome-hint") == detail


def test_an_answer_that_cannot_be_read_is_said(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    desk.page.route("**/v1/explain*", lambda route: route.fulfill(status=200, body="no JSON"))
    upload(desk, make_file("a.png"))
    assert "cannot be read" in desk.page.locator("#list li.failed").inner_text()


def test_no_answer_is_said(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    desk.page.route("**/v1/explain*", lambda route: route.abort())
    upload(desk, make_file("a.png"))
    assert "cannot be reached" in desk.page.locator("#list li.failed").inner_text()


def test_a_busy_service_is_asked_again(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    answers = [503]

    def answer(route: Route) -> None:
        if answers:
            route.fulfill(status=answers.pop(), content_type="application/problem+json", body="{}")
        else:
            route.continue_()

    desk.page.route("**/v1/explain*", answer)
    upload(desk, make_file("a.png"))
    assert desk.page.locator("#list li.ok").count() == 1


def test_another_model_explains_anew(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    upload(desk, make_file("a.png", 1), make_file("b.png", 2))
    desk.page.select_option("#model", "cells")
    expect(desk.page.locator("#class-rows tr")).to_have_count(2)
    expect(desk.page.locator("#list li.ok")).to_have_count(2)
    assert set(desk.page.locator("#class-rows th").all_inner_texts()) == {"intact", "defect"}
    assert desk.text("log-odds").startswith("Log-odds of ")
    assert desk.record()["model"]["name"] == "cells"


def test_grad_cam_stands_beside_it(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    upload(desk, make_file("a.png", 4))
    with desk.page.expect_response("**/v1/attribute*") as found:
        desk.page.select_option("#method", "grad_cam")
    answer = found.value.json()
    desk.until(lambda: "computing" not in desk.text("peer-title"))
    assert desk.text("peer-title") == f"Grad-CAM: {desk.text('verdict-class')}"
    assert len(np.unique(desk.pixels("peer")[::9, ::9].reshape(-1, 4), axis=0)) > 20
    assert answer["grid"] == [3, 3]
    desk.page.select_option("#target", "0")
    desk.until(lambda: desk.text("peer-title") == "Grad-CAM: normal")
    desk.page.select_option("#method", "")
    expect(desk.page.locator("#peer-frame")).to_be_hidden()


def make_dicom(frames: int) -> dict[str, Any]:
    """Return an upload of a DICOM file with 12 of 16 bits."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    dataset.Modality, dataset.PatientName, dataset.PatientID = "OT", "MARKED^PATIENT", "MARKED-ID"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "120000", "1", ""
    dataset.PatientBirthDate, dataset.PatientSex, dataset.ReferringPhysicianName = "", "", ""
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.Manufacturer = 1, 1, "none"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 120, 140, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelSpacing = [0.5, 0.5]
    if frames > 1:
        dataset.NumberOfFrames = frames
    ramps = [(np.arange(120 * 140).reshape(120, 140) * (frame + 1)) % 4096 for frame in range(frames)]
    dataset.PixelData = np.stack(ramps).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return {"name": "series.dcm", "mimeType": "application/dicom", "buffer": stream.getvalue()}


def test_slices_are_fetched_once(open_service: Callable[..., Desk]) -> None:
    desk = open_service()
    asked: list[str] = []
    desk.page.on("request", lambda request: asked.append(request.url) if "/v1/explain" in request.url else None)
    upload(desk, make_dicom(4))
    assert desk.page.locator("#frames").is_visible()
    assert desk.text("frame-output") == "1 of 4"
    assert desk.page.locator("#window-center").get_attribute("max") == "65535"
    first = desk.record()["maps"]
    desk.press(".")
    desk.until(lambda: desk.text("frame-output") == "2 of 4")
    assert desk.record()["maps"] != first
    desk.until(lambda: sum("frame=" in url for url in asked) >= 3)  # the neighbours come by themselves
    desk.press(",")
    desk.until(lambda: desk.text("frame-output") == "1 of 4")
    assert desk.record()["maps"] == first
    desk.page.locator("#frame").focus()
    desk.press("ArrowRight")
    desk.until(lambda: desk.text("frame-output") == "2 of 4")
    frames = [url.partition("frame=")[2].partition("&")[0] for url in asked if "frame=" in url]
    assert sorted(set(frames)) == sorted(frames), "a slice was asked for twice"


def test_a_dicom_file_is_exported_as_dicom(open_service: Callable[..., Desk]) -> None:
    pytest.importorskip("highdicom", reason="DICOM objects come with the extra `dicom`")
    desk = open_service()
    upload(desk, make_dicom(1))
    with desk.page.expect_download(timeout=30_000) as found:
        desk.page.locator("#export-dicom").click()
    assert found.value.suggested_filename == "series.evidence.zip"
    with zipfile.ZipFile(found.value.path()) as archive:
        assert len(archive.namelist()) >= 2


def test_a_real_radiograph(open_service: Callable[..., Desk], shared_data: Path) -> None:
    files = sorted((shared_data / "dicom_samples").glob("1.2*.dcm"))
    if not files:
        pytest.skip("there is no DICOM sample beside the checkout")
    desk = open_service()
    upload(desk, files[0])
    assert desk.page.locator("#list li.ok").count() == 1
    desk.press("g")
    assert "m²" in desk.text("measured-text")
