"""STOW-RS: one request per file, so that each has its own answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset

from softcam.imaging.dicom.silence import silenced

if TYPE_CHECKING:
    from softcam.interop.dicom.destination import Destination

Outcome = tuple[Path, str]

TOKEN, USER, PASSWORD = (f"SOFTCAM_DICOMWEB_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
_FAULTS = (
    (requests.exceptions.JSONDecodeError, "the answer cannot be understood"),
    (requests.exceptions.SSLError, "certificate of the service is not trusted"),
    (requests.exceptions.Timeout, "no answer in time"),
)
_WAYS_OUT = {
    401: f"set {USER} and {PASSWORD}, or {TOKEN}",
    403: "these credentials may not store",
    404: "is this the address of a DICOMweb service?",
    413: "the service takes no files of this size",
}


def store_by_web(paths: Iterable[Path], destination: Destination) -> Iterator[Outcome]:
    """Yield each file with the reason why the service did not take it, empty if it did.

    Args:
        paths: DICOM files.
        destination: An `http(s)://` address.
    """
    with requests.Session() as session:
        _authorize(session)
        if destination.ca_file is not None:
            session.verify = str(destination.ca_file)
        client = DICOMwebClient(destination.address, session=session, timeout=destination.timeout)
        client.set_http_retry_params(retry=True, max_attempts=3, wait_exponential_multiplier=500)
        for path in paths:
            yield path, _store(client, path)


def _authorize(session: requests.Session) -> None:
    # Without these, requests looks into the netrc file by itself.
    if token := os.environ.get(TOKEN):
        session.auth = _Bearer(token)
    elif user := os.environ.get(USER):
        session.auth = (user, os.environ.get(PASSWORD, ""))


class _Bearer(requests.auth.AuthBase):
    """Puts a token on a request; unlike a header of the session it is not sent on to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _store(client: DICOMwebClient, path: Path) -> str:
    try:
        with silenced():
            return _judge(client.store_instances([pydicom.dcmread(path, force=True)]))
    except requests.HTTPError as error:
        return _explain(0 if error.response is None else error.response.status_code)
    except requests.exceptions.RequestException as error:
        return next((text for kind, text in _FAULTS if isinstance(error, kind)), "no connection to the service")
    except (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError):
        return "file cannot be read or encoded, or the answer cannot be understood"


def _explain(code: int) -> str:
    way_out = _WAYS_OUT.get(code)
    return f"refused with HTTP {code}" + (f": {way_out}" if way_out else "")


def _judge(answer: Dataset) -> str:
    failed = answer.get("FailedSOPSequence") or []
    if not failed:
        return ""
    reason = failed[0].get("FailureReason")
    return "refused by the service" + (f" (reason 0x{int(reason):04X})" if reason is not None else "")
