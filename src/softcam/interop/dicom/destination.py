"""Where DICOM files are sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Destination:
    """Where files go.

    Args:
        address: `HOST:PORT` for C-STORE, or the `http(s)://` address of a DICOMweb service for STOW-RS.
        aet: Application entity title of the archive, for C-STORE.
        calling_aet: One's own title, for C-STORE.
        timeout: Seconds to wait for a connection or an answer.
        tls: Whether C-STORE is encrypted.
        ca_file: Certificates to trust, in PEM; default: those of the system.

    Raises:
        ValueError: If a value is out of range, or the address holds a password.
    """

    address: str
    aet: str = "ANY-SCP"
    calling_aet: str = "SOFTCAM"
    timeout: float = 30.0
    tls: bool = False
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if self.is_web:
            _check_web_address(self.address, tls=self.tls)
        else:
            _ = self.host_and_port
        for name in ("aet", "calling_aet"):
            if not re.fullmatch(
                r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?", getattr(self, name)
            ):
                raise ValueError(f"Expected `{name}` to be 1 to 16 ASCII characters, but got {getattr(self, name)!r}.")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"Expected `timeout` to be positive seconds, but got {self.timeout}.")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"Expected `ca_file` to be a file of certificates, but there is none: {self.ca_file}.")

    @property
    def is_web(self) -> bool:
        """Whether files go by STOW-RS."""
        return "://" in self.address

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Host and port of a C-STORE destination."""
        host, _, port = self.address.rpartition(":")
        if not host.strip("[]") or not re.fullmatch(r"\d{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ValueError(
                "Expected the destination to be HOST:PORT or an http(s):// address, but got "
                f"{self.address!r}. Example: pacs.example.org:104."
            )
        return host.strip("[]"), int(port)


def _check_web_address(address: str, *, tls: bool) -> None:
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "Expected an address without a password in it, but got one. Use the variables SOFTCAM_DICOMWEB_USER and "
            "SOFTCAM_DICOMWEB_PASSWORD, or a netrc file."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("Expected an address such as https://pacs.example.org/dicom-web, but got another kind.")
    if tls:
        raise ValueError("Expected `tls` for C-STORE alone, but got a web address. Write https:// there.")
