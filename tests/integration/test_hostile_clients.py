"""A service in a process of its own, among clients that mean harm or do not know better: each gets its refusal, nothing
fails, nothing of what they send is in the log, and everybody else is served meanwhile."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import softcam
from softcam.cli import main
from softcam.imaging import Preprocessing
from softcam.records import check_chain, create_key, load_verifier, read_chain

httpx = pytest.importorskip("httpx", reason="httpx comes with the extra `dev`")
pytest.importorskip("fastapi", reason="the service comes with the extra `serve`")
pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - of this test alone
NAME = "doe-jane-1970"
HEADER = "hush-hush"
MEGABYTES, MEGAPIXELS, HEADER_SECONDS, BODY_SECONDS, DECODE_SECONDS = 2, 4, 1.5, 2.0, 2.0
FILE_BYTES = 1_000_000
PROBLEM = "application/problem+json"


class Service:
    """`softcam serve` as a user starts it.

    Args:
        folder: Where its log goes.
        bundle: The model.
        flags: Of the command.
        token: For its environment.
        file_bytes: Largest file that it can write, as if the disk were full then.
    """

    def __init__(
        self, folder: Path, bundle: Path, *flags: object, token: str = "", file_bytes: int | None = None
    ) -> None:
        self.log_path = folder / "log"
        command = [sys.executable, "-m", "softcam", "serve", bundle, "--port", "0", "--backend", "torch", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOFTCAM_TOKEN": token}
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes,) * 2)) if file_bytes else None
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=limit,  # noqa: PLW1509 - one call of the system
            )
        self.port = 0

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"open https?://\S+:(\d+)", self.log):
                self.port = int(found[1])
                if self.get("/readyz").status_code == 200:
                    return
            time.sleep(0.05)
        pytest.fail(f"the service did not start: {self.log}")

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> Any:
        return httpx.get(self.url + path, timeout=30, **options)

    def post(self, content: bytes, path: str = "/v1/explain", **options: Any) -> Any:
        files = {"file": (f"{NAME}.png", content)}
        return httpx.post(self.url + path, files=files, timeout=60, **options)

    def knock(self, local_address: str) -> Any:
        """Return a client with the token and an address of its own, whose requests are counted apart."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        transport = httpx.HTTPTransport(local_address=local_address)
        return httpx.Client(transport=transport, headers=headers, base_url=self.url, timeout=60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self) -> int:
        """Tell it to end, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


class Services:
    """All of them, which start side by side."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        def start(name: str, *flags: object, **options: Any) -> Service:
            (folder / name).mkdir()
            return Service(folder / name, bundle, "--decoders", 1, *flags, **options)

        limits = ["--max-megabytes", MEGABYTES, "--max-megapixels", MEGAPIXELS, "--decode-seconds", DECODE_SECONDS]
        patience = ["--header-seconds", HEADER_SECONDS, "--body-seconds", BODY_SECONDS]
        self.bundle, self.store = bundle, folder / "kept"
        self.key, self.public_key = create_key(folder / "keys")
        self.open = start("open", *limits, *patience)
        few = ["--rate", 6, "--max-waiting", 2, "--store", self.store, "--record", self.key]
        self.guarded = start("guarded", "--host", "0.0.0.0", *few, token=TOKEN, file_bytes=FILE_BYTES)  # noqa: S104

    def close(self) -> None:
        for service in (self.open, self.guarded):
            service.process.kill()
            service.process.wait()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=2).eval()
    model = softcam.convert(black_box, images=torch.rand(2, 3, 64, 64))
    bundle = tmp_path_factory.mktemp("bundle") / "model"
    softcam.save(model, bundle, preprocessing=Preprocessing(size=64).to_dict())
    found = Services(tmp_path_factory.mktemp("services"), bundle)
    try:
        for service in (found.open, found.guarded):
            service.wait()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def service(services: Services) -> Service:
    return services.open


@pytest.fixture(autouse=True)
def unharmed(services: Services, good: bytes) -> Iterator[None]:
    """After whatever came, the service answers as before, and its log is clean."""
    yield
    answer = services.open.post(good, headers={"x-secret": HEADER})
    assert answer.status_code == 200, answer.text
    for one in (services.open, services.guarded):
        check_log(one.log)


def check_log(text: str) -> None:
    assert "Traceback" not in text
    assert not [secret for secret in (NAME, HEADER, TOKEN) if secret in text]
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [event for event in events if event["level"] not in ("info", "warning")] == []
    assert [event for event in events if event.get("status", 0) >= 500 and event["status"] not in (503, 507)] == []


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (72, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def good() -> bytes:
    return encode(NOISE)


def check_problem(answer: Any, *statuses: int) -> None:
    """Hold that an answer of httpx is a refusal of one of these kinds."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["x-request-id"]
    assert NAME not in answer.text


def ask(service: Service, *parts: bytes, pause: float = 0.0, end: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are and return status, headers and body of the first answer; 0 if the connection was ended."""
    with service.connect() as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before it was sent
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, {}, b""


def check_raw(answer: tuple[int, dict[str, str], bytes], *statuses: int) -> None:
    status, headers, body = answer
    assert status in statuses, answer
    assert headers["content-type"] == PROBLEM
    assert json.loads(body)["status"] == status


def write_head(service: Service, *lines: str, path: str = "/v1/explain", method: str = "POST") -> bytes:
    host = [] if any(line.lower().startswith("host:") for line in lines) else [f"Host: 127.0.0.1:{service.port}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *host, *lines, "", ""]).encode("latin-1")


def write_form(content: bytes, boundary: str = "b", head: str = 'name="file"; filename="a.png"') -> bytes:
    opening = f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode("latin-1")
    return opening + content + f"\r\n--{boundary}--\r\n".encode("latin-1")


FORM = "Content-Type: multipart/form-data; boundary=b"


# --- slow and silent clients


def test_a_slow_header_is_given_up(service: Service) -> None:
    started = time.monotonic()
    check_raw(ask(service, *[b"GET / HTTP/1.1\r\n", *[b"x", b"-", b"y", b": "] * 10], pause=0.1), 408)
    assert HEADER_SECONDS - 0.2 <= time.monotonic() - started < HEADER_SECONDS + 3


def test_hundreds_of_silent_connections_keep_nobody_out(service: Service, good: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    silent = [service.connect() for _ in range(700)]
    try:
        for connection in silent[::2]:
            connection.sendall(b"POST /v1/explain HTTP/1.1\r\nHost: ")
        for _ in range(3):
            assert service.post(good).status_code == 200
        time.sleep(HEADER_SECONDS + 0.5)
        ended = 0
        for connection in silent:
            connection.settimeout(2)
            try:
                answer = connection.recv(16)
            except ConnectionResetError:
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
            ended += 1
        assert ended == len(silent)
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_body_is_given_up_while_others_are_served(service: Service, good: bytes, chunked: bool) -> None:
    lines = [FORM, "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000"]
    dribble = [b"1\r\n-\r\n" if chunked else b"-"] * 12
    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        slow = [threads.submit(ask, service, write_head(service, *lines), *dribble, pause=0.15) for _ in range(8)]
        assert service.post(good).status_code == 200
        for one in slow:
            check_raw(one.result(), 408)
    assert time.monotonic() - started < BODY_SECONDS + 4


def test_clients_that_leave_in_the_middle_are_no_failures(service: Service, good: bytes) -> None:
    body = write_form(good)
    whole = write_head(service, FORM, f"Content-Length: {len(body)}") + body
    for sent in (len(whole) // 2, len(whole) - 1, len(whole)):
        with service.connect() as connection:
            connection.sendall(whole[:sent])
    assert service.post(good).status_code == 200


# --- more than is allowed


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    check_raw(ask(service, write_head(service, FORM, "Content-Length: 3000000")), 413)
    check_raw(ask(service, write_head(service, FORM, f"Content-Length: {10**18}")), 413)
    check_problem(service.post(bytes(5_000_000)), 413)


def test_a_body_that_grows_too_large_is_refused(service: Service) -> None:
    chunk = b"186a0\r\n" + bytes(100_000) + b"\r\n"
    check_raw(ask(service, write_head(service, FORM, "Transfer-Encoding: chunked"), *[chunk] * 25), 413)


@pytest.mark.parametrize("begun", [b"", b"5\r\nhello\r\n0\r\n", b"5;"])
def test_what_is_no_body_does_not_grow_either(service: Service, begun: bytes) -> None:
    """Headers without an end: of the request, behind its body, and behind the size of a chunk."""
    head = write_head(service, FORM, "Transfer-Encoding: chunked") if begun else b"GET / HTTP/1.1\r\n"
    answer = ask(service, head + begun, *[b"x-y: " + b"z" * 50_000 + (b"" if b";" in begun else b"\r\n")] * 60)
    check_raw(answer, 400)


def test_a_header_behind_a_request_that_is_answered_does_not_grow(service: Service) -> None:
    answer = ask(
        service,
        write_head(service, FORM, "Content-Length: 5"),
        b"hello",
        *[b"GET / HTTP/1.1\r\nx: ", *[b"z" * 60_000] * 40],
    )
    check_raw(answer, 400)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min((1 + width // 8) * height, 100_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 8}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(entries)) + fields + bytes(4)


def make_dicom(*, deflated: bool = False, preamble: bytes = bytes(128), **elements: Any) -> bytes:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.PatientName, dataset.Modality = NAME, "OT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 72, 80, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = NOISE[..., 0].tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        pydicom.uid.DeflatedExplicitVRLittleEndian if deflated else "1.2.840.10008.1.2.1"
    )
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return preamble + stream.getvalue()[128:]


def make_deflated_bomb() -> bytes:
    """A file whose header says "deflated", and whose rest becomes 200 MB of zeros."""
    whole = make_dicom(deflated=True)
    length = struct.unpack_from("<I", whole, 140)[0]
    packer = zlib.compressobj(9, wbits=-15)
    rest = b"".join(packer.compress(bytes(10_000_000)) for _ in range(20)) + packer.flush()
    return whole[: 144 + length] + rest


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "PNG of 3,600 megapixels": (lambda: make_png(60_000, 60_000), (413,)),
    "PNG as wide as can be": (lambda: make_png(2**31 - 1, 1), (413, 422)),
    "PNG just over the limit": (lambda: make_png(2001, 2000), (413,)),
    "PNG with 100 MB of text": (
        lambda: make_png(64, 64, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))),
        (200, 413, 422),
    ),
    "TIFF of 3,600 megapixels": (lambda: make_tiff(60_000, 60_000), (413,)),
    "DICOM of 4,294 megapixels": (lambda: make_dicom(Rows=65_535, Columns=65_535), (413, 422)),
    "DICOM of 2 billion frames": (lambda: make_dicom(NumberOfFrames=str(2**31 - 1)), (413, 422)),
    "DICOM of 10,001 frames": (lambda: make_dicom(NumberOfFrames="10001"), (413, 422)),
    "DICOM without a pixel": (lambda: make_dicom(Rows=0, Columns=0), (422,)),
    "DICOM of 200 MB, deflated": (make_deflated_bomb, (413, 422)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(service: Service, name: str) -> None:
    make, statuses = BOMBS[name]
    content = make()
    assert len(content) < 1_000_000 * MEGABYTES
    answer = service.post(content)
    if answer.status_code == 200 in statuses:
        return
    check_problem(answer, *statuses)


def make_endless_jpeg() -> bytes:
    """A photograph that refines itself tens of thousands of times, which takes a decoder minutes."""
    whole = encode(np.zeros((1900, 2000), np.uint8), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    scan, end = whole[at:-2], whole[-2:]
    return whole[:at] + scan * ((1_900_000 - len(whole)) // len(scan)) + end


def test_an_image_that_takes_too_long_ends_its_decoder_alone(service: Service, good: bytes) -> None:
    content = make_endless_jpeg()
    started = time.monotonic()
    answer = service.post(content)
    seconds = time.monotonic() - started
    check_problem(answer, 422)
    assert "took too long" in answer.json()["detail"]
    assert DECODE_SECONDS <= seconds < DECODE_SECONDS + 5
    assert service.post(good).status_code == 200


# --- what is no image, or not only


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("evil.js", "alert(1)")
    return stream.getvalue()


JPEG, GIF = encode(NOISE, "JPEG"), encode(NOISE[..., 0], "GIF")
REFUSED: dict[str, tuple[bytes, int]] = {
    "JPEG and ZIP": (JPEG + zipped(), 422),
    "PNG and more": (encode(NOISE) + b"<?php system($_GET[0]); ?>", 422),
    "GIF and HTML": (GIF[:6] + b"\x01\0\x01\0\0\0\0\x21\xfe\x1c<html><script>1</script></html>\0;", 422),
    "PDF and JPEG": (JPEG[:2] + b"\xff\xfe\0\x0b%PDF-1.7\n" + JPEG[2:], 422),
    "program and DICOM": (make_dicom(preamble=b"MZ".ljust(128, b"\0")), 422),
    "DICOM under a script": (make_dicom(preamble=b"#!/bin/sh\nexit\n".ljust(128, b"\0")), 422),
    "text": (b"these are words, and no image at all " * 20, 415),
    "HTML": (b"<!doctype html><html><script>alert(1)</script></html>", 422),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 422),
    "ELF": (b"\x7fELF\x02\x01\x01" + bytes(200), 415),
    "ZIP": (zipped(), 422),
    "random bytes": (np.random.default_rng(1).bytes(5000), 415),
    "nothing": (b"", 422),
    "half a PNG": (encode(NOISE)[:3000], 422),
    "half a JPEG": (JPEG[: len(JPEG) // 2], 422),
    "half a GIF": (GIF[: len(GIF) // 2], 422),
    "half a WebP": (encode(NOISE, "WEBP")[:800], 422),
    "half a DICOM": (make_dicom()[:600], 422),
    "DICOM with half its pixels": (make_dicom(PixelData=b"half"), 422),
    "head of a PNG": (b"\x89PNG\r\n\x1a\n", 415),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_or_more_than_one_thing_is_refused(service: Service, name: str) -> None:
    content, status = REFUSED[name]
    check_problem(service.post(content), status)


def test_one_bad_image_among_several_does_not_stop_the_others(service: Service, good: bytes) -> None:
    files = [("file", (NAME, content)) for content in (good, b"words", JPEG + zipped(), good)]
    answer = httpx.post(f"{service.url}/v1/explain", files=files, timeout=60)
    assert [one["status"] for one in answer.json()] == ["ok", "failed", "failed", "ok"]


# --- forms that are none


def many(count: int, head: str) -> bytes:
    part = f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\nx\r\n".encode()
    return part * count + b"--b--\r\n"


FORMS: dict[str, tuple[bytes, str, int]] = {
    "33 files": (many(33, 'name="file"; filename="a"'), "boundary=b", 400),
    "20,000 files": (many(20_000, 'name="file"; filename="a"'), "boundary=b", 400),
    "20,000 fields": (many(20_000, 'name="x"'), "boundary=b", 400),
    "a name of a megabyte": (write_form(b"x", head=f'name="{"n" * 1_000_000}"'), "boundary=b", 400),
    "a head of half quotes": (write_form(b"x", head='name="' + ';"' * 1500), "boundary=b", 422),
    "no boundary": (write_form(b"x"), "", 400),
    "another boundary": (write_form(b"x"), "boundary=c", 400),
    "a boundary of 71": (write_form(b"x", "b" * 71), f"boundary={'b' * 71}", 400),
    "an empty boundary": (write_form(b"x", ""), 'boundary=""', 400),
    "no end": (write_form(b"x")[:-8], "boundary=b", 400),
    "no head": (b"--b\r\n\r\nx\r\n--b--\r\n", "boundary=b", 422),
    "no line": (b"--b", "boundary=b", 400),
    "half boundaries": (b"--b\r\n" + b"\r\n--" * 400_000, "boundary=b", 400),
    "a text named file": (write_form(b"x", head='name="file"'), "boundary=b", 422),
    "nothing": (b"", "boundary=b", 400),
    "a type of half quotes": (write_form(b"x"), "boundary=b" + ';"' * 20_000, 400),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_none_are_refused(service: Service, name: str) -> None:
    body, options, status = FORMS[name]
    started = time.monotonic()
    answer = httpx.post(
        f"{service.url}/v1/explain",
        content=body,
        headers={"content-type": f"multipart/form-data; {options}".strip("; ")},
    )
    check_problem(answer, status)
    assert time.monotonic() - started < 5


def test_other_types_of_body_are_refused(service: Service) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/mixed; boundary=b"):
        answer = httpx.post(f"{service.url}/v1/explain", content=b"{}", headers={"content-type": kind})
        check_problem(answer, 400)


# --- pages of other sites, other names, other paths


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(service: Service, good: bytes, headers: dict[str, str]) -> None:
    check_problem(service.post(good, headers=headers), 403)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "[::1", "", "localhost@evil.example"])
def test_other_names_are_refused(service: Service, host: str) -> None:
    for path in ("/", "/v1/models", "/metrics", "/openapi.json"):
        check_raw(ask(service, write_head(service, f"Host: {host}", path=path, method="GET")), 421)


def test_the_old_protocol_without_a_name_is_refused(service: Service) -> None:
    check_raw(ask(service, b"GET /v1/models HTTP/1.0\r\n\r\n"), 421)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/%00",
        "/static/..%5c..%5cwin.ini",
        "/static/" + "a/" * 3000,
        "/static/%ff%fe",
        "//evil.example/static/main.js",
        "/v1/explain/",
        "/docs",
        "/.env",
    ],
)
def test_paths_that_lead_elsewhere_lead_nowhere(service: Service, path: str) -> None:
    status, headers, body = ask(service, write_head(service, path=path, method="GET"))
    assert status == 404, body
    assert headers["content-type"] == PROBLEM
    assert "location" not in headers
    assert b"evil" not in body


def test_only_the_methods_of_a_path_are_taken(service: Service) -> None:
    for method, path in (("PUT", "/v1/explain"), ("DELETE", "/"), ("TRACE", "/"), ("OPTIONS", "/v1/explain")):
        check_raw(ask(service, write_head(service, path=path, method=method)), 405)


@pytest.mark.parametrize("given", ["a b", "<script>", "x" * 65, "\xe9", "", "a\tb", "../../x", '"', "a%0d%0ab"])
def test_request_ids_are_plain_or_replaced(service: Service, given: str) -> None:
    path = "/v1/models"
    status, headers, _ = ask(service, write_head(service, f"X-Request-ID: {given}", path=path, method="GET"))
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])
    _, headers, _ = ask(service, write_head(service, "X-Request-ID: call-7", path=path, method="GET"))
    assert headers["x-request-id"] == "call-7"
    assert not given or f'"{given}"' not in service.log


def test_a_header_cannot_bring_another_along(service: Service) -> None:
    for trick in ("X-Request-ID: a\nset-cookie: b", "X-Request-ID: a\rset-cookie: b", "X-Request-ID: a\0b"):
        status, headers, _ = ask(service, write_head(service, trick, path="/v1/models", method="GET"))
        assert status in (200, 400)
        assert "set-cookie" not in headers


# --- what is no HTTP


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(service: Service, sent: bytes) -> None:
    check_raw(ask(service, sent), 400)


def test_requests_to_become_another_protocol_are_ignored(service: Service) -> None:
    lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAA"]
    status, _, _ = ask(service, write_head(service, *lines, path="/v1/models", method="GET"))
    assert status == 200


def test_garbage_behind_good_requests_ends_the_connection_alone(service: Service) -> None:
    good = write_head(service, path="/healthz", method="GET")
    with service.connect() as connection:
        connection.sendall(good * 3)
        received = b""
        while received.count(b'{"status":"ok"}') < 3:
            received += connection.recv(65_536)
        connection.sendall(b"\0garbage\r\n\r\n")
        check_raw(read_answer(connection), 400)
        assert connection.recv(16) == b""


def test_a_thousand_requests_at_once_in_one_connection_are_answered(service: Service) -> None:
    good = write_head(service, path="/healthz", method="GET")
    with service.connect() as connection:
        threading.Thread(target=connection.sendall, args=(good * 1000,), daemon=True).start()
        received = b""
        while received.count(b'{"status":"ok"}') < 1000:
            received += connection.recv(1_000_000)


# --- who may ask


def test_off_loopback_nothing_answers_without_the_token(services: Services, good: bytes) -> None:
    service = services.guarded
    assert [service.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    for path in ("/", "/static/main.js", "/v1/model", "/v1/models", "/metrics", "/openapi.json", "/docs", "/nothing"):
        answer = service.get(path)
        check_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic ")
    check_problem(service.post(good), 401)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("Basic " + b64encode(f"anyone:{TOKEN}".encode()).decode(), 200),
        ("Basic " + b64encode(f"{TOKEN}:".encode()).decode(), 401),
        ("Basic " + b64encode(TOKEN.encode()).decode(), 401),
        ("Basic !!!", 401),
        ("Basic", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer", 401),
        (f"Digest {TOKEN}", 401),
        (TOKEN, 401),
    ],
)
def test_the_token_lets_in(services: Services, authorization: str, status: int) -> None:
    answer = services.guarded.get("/v1/models", headers={"authorization": authorization})
    assert answer.status_code == status


def test_who_asks_too_often_is_told_to_slow_down(services: Services) -> None:
    # Sixty in ten seconds, from several connections, since a busy machine may not manage them one after the other.
    answers: list[Any] = []
    deadline = time.monotonic() + 60
    with services.guarded.knock("127.0.0.9") as client, ThreadPoolExecutor(8) as senders:
        while time.monotonic() < deadline and not any(answer.status_code == 429 for answer in answers):
            answers += senders.map(lambda _: client.get("/v1/models"), range(16))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 60
    refused = answers[statuses.index(429)]
    check_problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    with services.guarded.knock("127.0.0.8") as other:
        assert other.get("/v1/models").status_code == 200


# --- too many, no room, the end


def begin(service: Service, content: bytes) -> tuple[bytes, bytes]:
    """Return the two halves of a request with the token."""
    body = write_form(content)
    head = write_head(service, FORM, f"Content-Length: {len(body)}", f"Authorization: Bearer {TOKEN}")
    return head + body[:100], body[100:]


def test_who_comes_when_all_is_taken_is_told_to_come_back(services: Services, good: bytes) -> None:
    service = services.guarded
    half, rest = begin(service, good)
    with service.connect() as first, service.connect() as second, service.knock("127.0.0.10") as client:
        for connection in (first, second):
            connection.sendall(half)
        time.sleep(0.3)
        answer = client.get("/v1/models")
        check_problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert service.get("/healthz").status_code == 200
        for connection in (first, second):
            connection.sendall(rest)
            assert read_answer(connection)[0] == 200
        assert client.get("/v1/models").status_code == 200


def test_what_cannot_be_kept_is_not_answered(services: Services, good: bytes) -> None:
    store = services.store
    lines = store / "records.jsonl"
    with services.guarded.knock("127.0.0.11") as client:

        def post() -> Any:
            return client.post("/v1/explain", files={"file": (NAME, good)})

        assert post().status_code == 200
        kept = lines.read_bytes()
        lines.write_bytes(kept + b" " * (FILE_BYTES - len(kept) - 100))
        full = lines.read_bytes()
        check_problem(post(), 507)
        assert lines.read_bytes() == full, "half a line is taken back"
        lines.write_bytes(kept)
        assert post().status_code == 200
        shutil.move(store, store.with_name("gone"))
        check_problem(post(), 507)
        assert not store.exists()
        shutil.move(store.with_name("gone"), store)
        assert post().status_code == 200
    report = check_chain(lines, keys=[load_verifier(services.public_key)])
    assert (report.faults, report.signed) == ((), True)
    bodies = [record.body for record in read_chain(lines) if record is not None]
    assert [body["kind"] for body in bodies[:2]] == ["context", "prediction"]
    assert all((store / body["evidence"]["file"]).is_file() for body in bodies[1:])
    assert NAME not in lines.read_text(encoding="utf-8")


def test_a_store_that_cannot_be_written_is_known_before_anybody_asks(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    flags = ["--backend", "torch", "--port", "0", "--store", str(tmp_path / "file" / "store")]
    flags += ["--record", str(services.key)]
    assert main(["serve", str(services.bundle), *flags]) == 2
    said = capsys.readouterr().err
    assert "open http" not in said
    assert said.splitlines()[-1].startswith("softcam: ")


def test_no_answer_was_a_failure(services: Services, good: bytes) -> None:
    # Also of the tests before this one, those that this process has run.
    assert [services.open.post(content).status_code for content in (good, b"nothing")] == [200, 415]
    numbers = services.open.get("/metrics").text
    statuses = set(re.findall(r'softcam_requests_total\{[^}]*status="(\d+)"', numbers))
    assert {"200", "415"} <= statuses
    assert not [status for status in statuses if status.startswith("5")]
    assert NAME not in numbers


def test_what_is_asked_is_answered_before_the_end(services: Services, good: bytes) -> None:
    service = services.guarded
    half, rest = begin(service, good)
    with service.connect() as connection, service.connect():
        connection.sendall(half)
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert service.process.poll() is None
        with pytest.raises(OSError, match="refused"):
            service.connect()
        connection.sendall(rest)
        status, _, answer = read_answer(connection)
    assert status == 200
    assert json.loads(answer)["status"] == "ok"
    assert service.process.wait(30) == 0
