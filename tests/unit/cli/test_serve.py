"""`softcam serve` refuses what it could not keep safe, before it listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import softcam
from softcam.cli import main

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
