"""The service does what its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import softcam
from softcam.imaging import Preprocessing

httpx = pytest.importorskip("httpx", reason="httpx comes with the extra `dev`")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis comes with the extra `dev`")
pytest.importorskip("uvicorn", reason="the service comes with the extra `serve`")

from schemathesis.generation import GenerationMode  # noqa: E402 - see above

from softcam.serving import create_app, open_models  # noqa: E402 - see above
from softcam.serving.problems import MEDIA_TYPE, STATUSES  # noqa: E402 - see above


def draw(kind: str, seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


IMAGES = {f"image/{kind.lower()}": draw(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")}
for media_type, content in IMAGES.items():
    # Most are images, so that answers are looked at as well as refusals.
    schemathesis.openapi.media_type(media_type, st.one_of(st.just(content), st.just(content), st.binary(max_size=200)))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, listen: Callable[..., Any]) -> Iterator[str]:
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=3).eval()
    folder = tmp_path_factory.mktemp("service") / "model"
    model = softcam.convert(black_box, images=torch.rand(2, 3, 64, 64))
    softcam.save(model, folder, preprocessing=Preprocessing(size=64).to_dict())
    app = create_app(open_models([str(folder)], backend="torch"))
    with listen(app) as address:
        yield address


@pytest.fixture(scope="module")
def api(url: str) -> Any:
    # A valid form may still hold what is no image, a method that the model has not, or a frame that is not there.
    statuses = ["2xx", "404", "413", "415", "422"]
    checks = {"positive_data_acceptance": {"expected-statuses": statuses}, "unsupported_method": {"enabled": True}}
    config = schemathesis.Config.from_dict({"checks": checks})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


OPERATIONS = [
    *[("POST", f"/v1/{name}") for name in ("explain", "attribute", "dicom")],
    *[("GET", path) for path in ("/v1/model", "/v1/models", "/healthz", "/readyz", "/metrics")],
]


INVALID = [operation for operation in OPERATIONS if operation[1].startswith("/v1") and operation[1] != "/v1/models"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_valid_is_answered_as_documented(api: Any, method: str, path: str) -> None:
    statuses = ask(api[path][method], GenerationMode.POSITIVE)
    assert 200 in statuses or path == "/v1/dicom", "no answer was looked at"


@pytest.mark.parametrize(("method", "path"), INVALID)
def test_what_is_invalid_is_refused_as_documented(api: Any, method: str, path: str) -> None:
    assert ask(api[path][method], GenerationMode.NEGATIVE) & {400, 404, 422}


def ask(operation: Any, mode: GenerationMode) -> set[int]:
    """Try an operation with whatever comes to mind, and return the statuses of the answers."""
    statuses = set()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        statuses.add(case.call_and_validate().status_code)

    check()
    return statuses


@pytest.mark.parametrize("content", [b"words", b"\xff\xd8\xff no photograph", np.random.default_rng(0).bytes(3000)])
@pytest.mark.parametrize("path", ["/v1/explain", "/v1/attribute?target=0", "/v1/dicom"])
def test_what_is_no_image_is_refused_as_documented(
    url: str, document: dict[str, Any], path: str, content: bytes
) -> None:
    answer = httpx.post(url + path, files={"file": content})
    documented = document["paths"][path.partition("?")[0]]["post"]["responses"]
    assert answer.status_code in (415, 422)
    assert str(answer.status_code) in documented
    assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    return found


def test_the_document_is_valid_and_whole(api: Any, document: dict[str, Any]) -> None:
    api.validate()
    found = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert sorted(found) == sorted(OPERATIONS)


def test_every_problem_is_documented(document: dict[str, Any]) -> None:
    for status in STATUSES.values():
        assert str(status) in document["info"]["description"]
    documented = {
        status for methods in document["paths"].values() for one in methods.values() for status in one["responses"]
    }
    # 405 is the answer to a method that no operation has.
    assert {str(status) for status in STATUSES.values()} - documented == {"405"}


def test_answers_and_refusals_have_examples(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                for media_type, content in response["content"].items():
                    shown = "example" in content or path in ("/healthz", "/readyz") or media_type == "application/zip"
                    assert shown, (path, status)
