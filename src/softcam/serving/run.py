"""Listen, and answer until told to stop."""

from __future__ import annotations

import logging.config
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from softcam.errors import ServiceError
from softcam.serving.protocol import bound_protocol
from softcam.serving.settings import ServiceSettings
from softcam.serving.telemetry import configure_logs

_BACKLOG = 512
_FAREWELL_SECONDS = 30


@dataclass(frozen=True)
class Listening:
    """Where a service listens.

    Args:
        port: TCP port; 0 for any that is free.
        certificate: Of TLS, in PEM, with the chain; None for plain HTTP.
        key: Of the certificate, in PEM; None if it is in the same file.
        verbose: Whether each request is a line of the log.
    """

    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None
    verbose: bool = True


def run_service(
    app: FastAPI, settings: ServiceSettings, listening: Listening, *, started: Callable[[str], None]
) -> None:
    """Answer until SIGTERM or SIGINT; then answer what was asked, for up to 30 seconds, and return.

    Args:
        app: What `create_app` gave.
        settings: With which it was made.
        listening: Where.
        started: Called with the address once connections are taken.

    Raises:
        ServiceError: If nobody can listen there.
    """
    place = _bind(settings.access.host, listening.port)
    logging.config.dictConfig(configure_logs(verbose=listening.verbose))
    config = uvicorn.Config(
        app,
        http=bound_protocol(settings.limits.header_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(settings.limits.header_seconds)),
        timeout_graceful_shutdown=_FAREWELL_SECONDS,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
    )
    server = uvicorn.Server(config)
    scheme = "http" if listening.certificate is None else "https"
    shown = f"[{settings.access.host}]" if ":" in settings.access.host else settings.access.host
    try:
        started(f"{scheme}://{shown}:{place.getsockname()[1]}")
        with _told_to_end():
            server.run(sockets=[place])
    finally:
        place.close()
    if not server.started:
        raise ServiceError("Expected the service to start, but it did not. The log says why.")


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let a signal be a good end: uvicorn raises it again, for the handler that it found, when all is answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise ServiceError(
            f"Expected to listen on {host}:{port}, but: {reason.lower()}. Choose another --port."
        ) from error
