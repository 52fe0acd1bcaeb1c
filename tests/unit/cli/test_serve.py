"""`softcam serve` refuses what it could not keep safe, before it listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import softcam
from softcam.cli import main
from softcam.predict import Checks
from softcam.records import create_key

pytest.importorskip("fastapi", reason="the service comes with the extra `serve`")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=2).eval()
    return softcam.save(softcam.convert(black_box), tmp_path_factory.mktemp("serve") / "model", classes=["a", "b"])


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 2
    return capsys.readouterr().err


def test_others_need_a_token(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SOFTCAM_TOKEN", raising=False)
    assert "SOFTCAM_TOKEN" in fail(capsys, str(bundle), "--host", "0.0.0.0")  # noqa: S104 - what is refused
    short = tmp_path / "token"
    short.write_text("short\n", encoding="utf-8")
    message = fail(capsys, str(bundle), "--token-file", str(short))
    assert "at least 16" in message
    assert "short" not in message
    assert "No such file" in fail(capsys, str(bundle), "--token-file", str(tmp_path / "none"))


def test_a_port_that_is_taken_is_named(bundle: Path, taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, str(bundle), "--port", str(taken), "--backend", "torch")
    assert f"127.0.0.1:{taken}" in message
    assert "--port" in message


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "none") in fail(capsys, str(tmp_path / "none"))


def test_a_store_that_cannot_be_written_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["keys", "--out", str(tmp_path / "keys")]) == 0
    store = ["--store", str(tmp_path / "file" / "store"), "--record", str(tmp_path / "keys" / "key.pem")]
    message = fail(capsys, str(bundle), "--backend", "torch", *store)
    assert str(tmp_path / "file") in message
    assert "softcam keys" in fail(capsys, str(bundle), "--backend", "torch", *store[:2])


def test_every_flag_reaches_the_service(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def create(models: Any, settings: Any) -> None:
        told.update(models=models, settings=settings)

    def listen(_app: Any, settings: Any, listening: Any, **_: Any) -> None:
        told.update(listening=listening)

    monkeypatch.setattr("softcam.serving.create_app", create)
    monkeypatch.setattr("softcam.serving.run_service", listen)
    monkeypatch.setenv("SOFTCAM_TOKEN", "t" * 20)
    secret, _ = create_key(tmp_path / "keys")
    words = "--host 0.0.0.0 --port 5 --allow-host a b --rate 6.5 --max-megabytes 2 --max-megapixels 3 --max-waiting 4 "
    words += "--header-seconds 5 --body-seconds 6 --decode-seconds 7 --decoders 8 --batch-size 9 --backend torch"
    store = ["--store", str(tmp_path / "kept"), "--record", str(secret), "--checks", "refuse"]
    assert main(["serve", f"name={bundle}", *words.split(), "--quiet", *store]) == 0
    access, limits = told["settings"].access, told["settings"].limits
    assert (access.host, access.token, access.hosts, access.rate) == ("0.0.0.0", "t" * 20, ("a", "b"), 6.5)  # noqa: S104
    assert (limits.max_bytes, limits.max_pixels, limits.max_waiting) == (2_000_000, 3_000_000, 4)
    assert (limits.header_seconds, limits.body_seconds, limits.decode_seconds) == (5, 6, 7)
    assert (told["settings"].decoders, told["settings"].store) == (8, tmp_path / "kept")
    assert (told["listening"].port, told["listening"].verbose) == (5, False)
    (model,) = told["models"]
    assert (model.name, model.predictor.backend, model.predictor.batch_size) == ("name", "torch", 9)
    assert model.predictor.checker.checks == Checks(size="refuse", intensity="refuse", features="refuse")


@pytest.mark.parametrize(("host", "rate"), [("127.0.0.1", None), ("0.0.0.0", 20.0)])  # noqa: S104
def test_a_rate_is_the_default_off_loopback_alone(
    host: str, rate: float | None, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("softcam.serving.create_app", lambda _models, settings: told.append(settings))
    monkeypatch.setattr("softcam.serving.run_service", lambda *_, **__: None)
    monkeypatch.setenv("SOFTCAM_TOKEN", "t" * 20)
    assert main(["serve", str(bundle), "--host", host, "--backend", "torch"]) == 0
    assert told[0].access.rate == rate
