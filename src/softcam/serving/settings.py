"""What a service allows, and to whom."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path

from softcam.cores import count_cores
from softcam.errors import ServiceError
from softcam.imaging import DecodeLimits
from softcam.records import Signer

LEAST_TOKEN = 16
"""Characters that a token has at least."""


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost at most.

    Args:
        max_bytes: Body of one request.
        max_files: Files in one request.
        max_pixels: Height times width of an image, checked before any pixel is decoded.
        light_pixels: Images of more pixels are decoded by a process of their own, so that they keep no smaller ones
            waiting.
        max_frames: Frames of one file.
        max_waiting: Requests that are worked on or wait; further ones are told to come back.
        max_waiting_bytes: Bodies that are in memory or being received, together.
        header_seconds: From the connection, or the last answer, to a whole header.
        body_seconds: From the header to the whole body.
        decode_seconds: For decoding one image, after which its decoder is killed.
        send_seconds: For a client to take the next part of an answer.
        decoder_bytes: Memory that a decoder may use beside its libraries.

    Raises:
        ValueError: If a limit is not positive.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_files: int = 32
    max_pixels: int = 50_000_000
    light_pixels: int = 4_500_000
    max_frames: int = 10_000
    max_waiting: int = 128
    max_waiting_bytes: int = 512 * 1024 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    decode_seconds: float = 20.0
    send_seconds: float = 30.0
    decoder_bytes: int = 2 * 1024 * 1024 * 1024

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not (math.isfinite(value := getattr(self, entry.name)) and value > 0):
                raise ValueError(f"Expected `{entry.name}` to be positive, but got {value}.")

    def of_decoding(self, *, light: bool) -> DecodeLimits:
        """Return what an image may cost to decode.

        Args:
            light: Beside other requests, or in the process for large images.
        """
        most = min(self.light_pixels, self.max_pixels) if light else self.max_pixels
        return DecodeLimits(max_pixels=most, max_bytes=self.max_bytes, max_frames=self.max_frames)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Args:
        host: Address to listen on.
        token: What a client has to show, as a bearer token or as the password of HTTP Basic; empty for none, which is
            possible on the loopback address alone.
        hosts: Names by which clients may call this machine, beside those of the loopback address. Without any, every
            name is taken where a token is needed.
        rate: Requests per second of one client address; None for no limit.

    Raises:
        ServiceError: If the service could be reached from outside without a token, or the token is too short.
        ValueError: If the rate is not positive.
    """

    host: str = "127.0.0.1"
    token: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.token and not self.is_local:
            raise ServiceError(
                f"Expected a token for a service on {self.host}, which others can reach, but got none. "
                "Put one into a file and give --token-file, or set SOFTCAM_TOKEN; or listen on 127.0.0.1."
            )
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable()):
            raise ServiceError(
                f"Expected a token of at least {LEAST_TOKEN} printable ASCII characters, but got another. "
                "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"Expected `rate` to be positive, but got {self.rate}.")

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class ServiceSettings:
    """How a service works.

    Args:
        access: Who may ask.
        limits: What requests may cost.
        decoders: Processes that decode images, beside the one for large images.
        store: Folder for what was predicted; None to keep nothing.
        signer: Signs the records in it.

    Raises:
        ServiceError: If there is a store without a key, or a key without a store.
        ValueError: If there is no decoder.
    """

    access: Access = Access()
    limits: Limits = Limits()
    decoders: int = field(default_factory=count_cores)
    store: Path | None = None
    signer: Signer | None = None

    def __post_init__(self) -> None:
        if (self.store is None) != (self.signer is None):
            raise ServiceError(
                "Expected a store together with a key that signs its records, but got one of them. "
                "Make a key with `softcam keys`, and give --store FOLDER --record key.pem."
            )
        if self.decoders < 1:
            raise ValueError(f"Expected `decoders` to be at least 1, but got {self.decoders}.")
