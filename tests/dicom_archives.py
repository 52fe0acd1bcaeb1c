"""Archives on loopback: Orthanc from Debian, and a provider of storage in this process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context

DEBIAN = "apt-get install orthanc orthanc-dicomweb dicom3tools"
PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
PASSWORD = "pass-word-4711"  # noqa: S105 - of a server that lives for one test


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Provider:
    """A storage provider: what it received, and what it answers."""

    port: int
    received: list[Dataset] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    abort_after: int | None = None


@contextmanager
def run_provider(*, contexts: list[Any] | None = None, tls: Any = None, aet: str = "ANY-SCP") -> Iterator[Provider]:
    provider = Provider(find_free_port())

    def on_store(event: evt.Event) -> int:
        if provider.abort_after is not None and len(provider.received) >= provider.abort_after:
            provider.abort_after = None
            event.assoc.abort()
            return 0xA700
        dataset = event.dataset
        provider.received.append(dataset)
        provider.callers.append(event.assoc.requestor.ae_title)
        return provider.answers.get(dataset.SOPInstanceUID, 0x0000)

    entity = AE(ae_title=aet)
    entity.require_called_aet = aet != "ANY-SCP"
    entity.supported_contexts = contexts if contexts is not None else list(AllStoragePresentationContexts)
    for extra in ("1.2.840.10008.5.1.4.1.1.30",):
        if contexts is None:
            entity.supported_contexts = [*entity.supported_contexts, build_context(extra)]
    server = entity.start_server(
        ("127.0.0.1", provider.port), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)], ssl_context=tls
    )
    try:
        yield provider
    finally:
        server.shutdown()


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    web: str
    dicom: str

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.web}{path}")  # noqa: S310 - loopback
        request.add_header("Authorization", "Basic dGVzdGVyOnBhc3Mtd29yZC00NzEx")
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            return json.load(answer)


def find_orthanc() -> tuple[str, Path]:
    program = shutil.which("Orthanc") or shutil.which("orthanc")
    plugins = [path for folder in PLUGINS for path in folder.rglob("libOrthancDicomWeb.so*")]
    if program is None or not plugins:
        pytest.skip(f"Orthanc with its DICOMweb plugin is not installed: {DEBIAN}")
    return program, plugins[0]


@contextmanager
def run_orthanc(folder: Path) -> Iterator[Orthanc]:
    program, plugin = find_orthanc()
    web, dicom = find_free_port(), find_free_port()
    settings = {
        "Name": "softcam tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": web,
        "DicomPort": dicom,
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"tester": PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], stdout=log, stderr=log, env={**os.environ, "TZ": "UTC"}
        )
        try:
            server = Orthanc(f"http://127.0.0.1:{web}", f"127.0.0.1:{dicom}")
            _wait(server, process, folder / "orthanc.log")
            yield server
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(server: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended: {log.read_text()[-2000:]}")
        try:
            server.ask("/system")
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc did not answer: {log.read_text()[-2000:]}")
