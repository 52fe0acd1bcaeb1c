from __future__ import annotations

import base64
import http.server
import logging
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import build_context

from softcam.errors import DicomError
from softcam.interop.dicom import KINDS, Destination, ModelIdentity, read_source, send, write_objects

Packaged = Callable[[str], Path]
SECRETS = ("Nadja", "MRN-4711", "pass-word-4711", "token-0815")


@pytest.fixture
def objects(mark: Callable[..., Path], tmp_path: Path, predict: Callable[..., Any], identity: ModelIdentity) -> Path:
    """The four objects of a prediction, and their source."""
    path = mark(folder=tmp_path / "objects")
    source = read_source(path)
    write_objects(predict(*source.size), source, tmp_path / "objects", model=identity)
    return tmp_path / "objects"


def problems(paths: list[Path], destination: Destination) -> dict[str, str]:
    return {delivery.path.name: delivery.problem for delivery in send(paths, destination)}


NONE_FAILED = {"CT_small.dcm": "", **{f"{kind}.dcm": "" for kind in KINDS}}


# C-STORE


def test_every_object_arrives(objects: Path, archives: ModuleType) -> None:
    with archives.run_provider(aet="ARCHIVE") as provider:
        destination = Destination(f"127.0.0.1:{provider.port}", aet="ARCHIVE", calling_aet="READER")
        assert problems([objects], destination) == NONE_FAILED
    assert set(provider.callers) == {"READER"}
    expected = {pydicom.dcmread(path).SOPInstanceUID for path in objects.iterdir()}
    assert {dataset.SOPInstanceUID for dataset in provider.received} == expected


def test_each_refusal_is_that_of_its_file(objects: Path, archives: ModuleType) -> None:
    refused = pydicom.dcmread(objects / "map.dcm").SOPInstanceUID
    warned = pydicom.dcmread(objects / "report.dcm").SOPInstanceUID
    with archives.run_provider() as provider:
        provider.answers.update({refused: 0xA700, warned: 0xB000})
        found = problems([objects], Destination(f"127.0.0.1:{provider.port}"))
    assert found == {**NONE_FAILED, "map.dcm": "out of resources (status 0xA700)"}


def test_what_the_archive_does_not_take_is_named(objects: Path, archives: ModuleType) -> None:
    with archives.run_provider(contexts=[build_context("1.2.840.10008.5.1.4.1.1.7")]) as provider:
        found = problems([objects], Destination(f"127.0.0.1:{provider.port}"))
    reason = "archive does not take this class of objects in this transfer syntax"
    assert found == {**dict.fromkeys(NONE_FAILED, reason), "capture.dcm": ""}


def test_after_a_lost_connection_the_rest_is_sent(objects: Path, archives: ModuleType) -> None:
    with archives.run_provider() as provider:
        provider.abort_after = 2
        found = problems([objects], Destination(f"127.0.0.1:{provider.port}", timeout=5))
    assert found == NONE_FAILED
    assert len(provider.received) == 5


def test_an_archive_that_is_not_there_fails_every_file(objects: Path, archives: ModuleType) -> None:
    found = problems([objects], Destination(f"127.0.0.1:{archives.find_free_port()}", timeout=2))
    assert found == dict.fromkeys(NONE_FAILED, "no connection, or the archive refused it")


def test_a_wrong_title_is_refused(objects: Path, archives: ModuleType) -> None:
    with archives.run_provider(aet="ARCHIVE") as provider:
        found = problems([objects / "map.dcm"], Destination(f"127.0.0.1:{provider.port}", aet="OTHER"))
    assert found == {"map.dcm": "no connection, or the archive refused it"}


def test_bad_files_are_named_and_the_rest_goes_on(objects: Path, archives: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(b"\0" * 128 + b"DICM")
    with archives.run_provider() as provider:
        paths = [tmp_path / "notes.txt", tmp_path / "absent.dcm", damaged, objects / "map.dcm"]
        found = problems(paths, Destination(f"127.0.0.1:{provider.port}"))
    assert found == {
        "notes.txt": "not a DICOM file",
        "absent.dcm": "cannot be read: no such file or directory",
        "damaged.dcm": "file meta information is missing or damaged",
        "map.dcm": "",
    }


@pytest.mark.slow
def test_more_kinds_than_an_association_takes(packaged: Packaged, archives: ModuleType, tmp_path: Path) -> None:
    """130 classes need two associations."""
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts[:130]]
    for number, sop_class in enumerate(classes):
        dataset = pydicom.dcmread(packaged("CT_small.dcm"))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(tmp_path / f"{number}.dcm")
    with archives.run_provider(contexts=[build_context(sop_class) for sop_class in classes]) as provider:
        found = problems([tmp_path], Destination(f"127.0.0.1:{provider.port}"))
    assert set(found.values()) == {""}
    assert len(provider.received) == 130


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: apt-get install openssl")
    return key, pem


def test_tls_with_a_certificate_that_is_trusted(
    objects: Path, archives: ModuleType, certificate: tuple[Path, Path]
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate[1], certificate[0])
    with archives.run_provider(tls=server) as provider:
        address = f"127.0.0.1:{provider.port}"
        trusted = Destination(address, tls=True, ca_file=certificate[1], timeout=5)
        assert problems([objects / "map.dcm"], trusted) == {"map.dcm": ""}
        found = problems([objects / "map.dcm"], Destination(address, tls=True, timeout=5))
        assert found == {"map.dcm": "no connection, or the archive refused it"}
    assert len(provider.received) == 1


def test_a_file_that_holds_no_certificates(objects: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(DicomError, match="hold certificates in PEM"):
        list(send([objects], Destination("127.0.0.1:1", tls=True, ca_file=tmp_path / "ca.pem")))


# STOW-RS


@contextmanager
def run_service(
    status: int, *, body: bytes = b"", token: str | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web service that gives one answer; yield its address and the headers of what it was asked."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(dict(self.headers))
            allowed = token is None or self.headers.get("Authorization") == token
            self.send_response(status if allowed else 401)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"", ""),
        (401, b"", "refused with HTTP 401: set SOFTCAM_DICOMWEB_USER and SOFTCAM_DICOMWEB_PASSWORD"),
        (404, b"", "refused with HTTP 404: is this the address of a DICOMweb service?"),
        (409, b"", "refused with HTTP 409"),
        (
            202,
            b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}',
            "refused by the service (reason 0xA700)",
        ),
        (200, b"not json", "answer cannot be understood"),
    ],
)
def test_answers_of_a_web_service(status: int, body: bytes, problem: str, objects: Path) -> None:
    with run_service(status, body=body) as (address, asked):
        found = problems([objects / "map.dcm"], Destination(address))
    assert problem in found["map.dcm"]
    assert bool(found["map.dcm"]) == bool(problem)
    assert len(asked) == 1


def test_a_token_comes_from_the_environment(objects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTCAM_DICOMWEB_TOKEN", "token-0815")
    with run_service(200, token="Bearer token-0815") as (address, _):  # noqa: S106 - of this test
        assert problems([objects / "map.dcm"], Destination(address)) == {"map.dcm": ""}


def test_a_password_comes_from_netrc(objects: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login tester password pass-word-4711\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    expected = "Basic " + base64.b64encode(b"tester:pass-word-4711").decode()
    with run_service(200, token=expected) as (address, _):
        assert problems([objects / "map.dcm"], Destination(address)) == {"map.dcm": ""}


def test_a_service_that_is_not_there(objects: Path, archives: ModuleType) -> None:
    address = f"http://127.0.0.1:{archives.find_free_port()}/dicom-web"
    assert problems([objects / "map.dcm"], Destination(address)) == {"map.dcm": "no connection to the service"}


# A real archive


@pytest.fixture(scope="module")
def orthanc(archives: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with archives.run_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def list_stored(orthanc: Any) -> set[str]:
    return {orthanc.ask(f"/instances/{name}/simplified-tags")["SOPInstanceUID"] for name in orthanc.ask("/instances")}


def test_orthanc_takes_everything_by_store(objects: Path, orthanc: Any) -> None:
    assert problems([objects], Destination(orthanc.dicom, aet="ARCHIVE")) == NONE_FAILED
    assert {pydicom.dcmread(path).SOPInstanceUID for path in objects.iterdir()} <= list_stored(orthanc)


def test_orthanc_takes_everything_by_stow(
    objects: Path, orthanc: Any, monkeypatch: pytest.MonkeyPatch, archives: ModuleType
) -> None:
    monkeypatch.setenv("SOFTCAM_DICOMWEB_USER", "tester")
    monkeypatch.setenv("SOFTCAM_DICOMWEB_PASSWORD", archives.PASSWORD)
    assert problems([objects], Destination(f"{orthanc.web}/dicom-web")) == NONE_FAILED
    assert {pydicom.dcmread(path).SOPInstanceUID for path in objects.iterdir()} <= list_stored(orthanc)


def test_orthanc_refuses_a_wrong_password(objects: Path, orthanc: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTCAM_DICOMWEB_USER", "tester")
    monkeypatch.setenv("SOFTCAM_DICOMWEB_PASSWORD", "wrong")
    found = problems([objects / "map.dcm"], Destination(f"{orthanc.web}/dicom-web"))
    assert "HTTP 40" in found["map.dcm"]


# What it says


def test_neither_patients_nor_passwords_are_logged(
    objects: Path,
    archives: ModuleType,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOFTCAM_DICOMWEB_TOKEN", "token-0815")
    with caplog.at_level(logging.DEBUG), archives.run_provider() as provider, run_service(500) as (address, _):
        problems([objects], Destination(f"127.0.0.1:{provider.port}"))
        problems([objects / "map.dcm"], Destination(address))
    output = capfd.readouterr()
    texts = [record.getMessage() for record in caplog.records if record.name.split(".")[0] != "pynetdicom"]
    assert not [secret for secret in SECRETS for text in (*texts, output.out, output.err) if secret in text]


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("pacs", {}, r"HOST:PORT or an http\(s\):// address, but got 'pacs'"),
        ("pacs:0", {}, "HOST:PORT"),
        ("pacs:65536", {}, "HOST:PORT"),
        (":104", {}, "HOST:PORT"),
        ("pacs:104", {"aet": ""}, "`aet` to be 1 to 16 ASCII characters"),
        ("pacs:104", {"aet": "A" * 17}, "`aet` to be 1 to 16 ASCII characters"),
        ("pacs:104", {"calling_aet": "Ä"}, "`calling_aet` to be 1 to 16 ASCII characters"),
        ("pacs:104", {"timeout": 0}, "`timeout` to be positive seconds, but got 0"),
        ("pacs:104", {"ca_file": Path("absent.pem")}, "`ca_file` to be a file of certificates"),
        ("ftp://pacs/x", {}, "address such as https://"),
        ("https://u:pass-word-4711@pacs/dicom-web", {}, "without a password in it"),
        ("https://pacs/dicom-web", {"tls": True}, "`tls` for C-STORE alone"),
    ],
)
def test_destinations_that_cannot_be(address: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Destination(address, **options)
    assert "pass-word-4711" not in str(caught.value)


def test_titles_of_one_and_of_sixteen_characters() -> None:
    assert Destination("pacs:104", aet="A", calling_aet="A" * 16).host_and_port == ("pacs", 104)
    assert Destination("[::1]:104").host_and_port == ("::1", 104)
