"""HTTP connections that cannot be held open by saying nothing."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from softcam.serving.problems import Problem, to_answer
from softcam.serving.telemetry import tell

_LONGEST_HEADER = 64 * 1024
_MOST_SILENT = 512  # with all that are answered, fewer than the files that a process may usually open


@dataclass(frozen=True)
class Patience:
    """How long connections are waited for.

    Args:
        seconds: From the connection, or the last answer, to a whole header.
        silent: Connections of which no whole header has come, the longest silent first.
    """

    seconds: float
    silent: dict[BoundProtocol, None] = field(default_factory=dict)

    def begin(self, connection: BoundProtocol) -> None:
        """Wait for a connection; where too many are waited for, give up the first."""
        self.silent[connection] = None
        if len(self.silent) > _MOST_SILENT:
            next(iter(self.silent)).give_up()


class BoundProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits on a request's header, which uvicorn leaves to a proxy before it.

    A header that takes too long is answered with 408, one of more than 64 KiB with 400. Where too many connections are
    silent, the one that has been so for the longest is ended.

    Args:
        patience: Shared by the connections of one service.
        **kwargs: What uvicorn gives.
    """

    def __init__(self, *, patience: Patience, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._useless = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first header."""
        super().connection_made(transport)
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_expecting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless it has been long since a whole header or a part of a body."""
        # Also of the next header while a request is answered, of what follows a chunked body, and of a chunk's name.
        self._useless += len(data)
        super().data_received(data)
        if self._useless > _LONGEST_HEADER:
            self._turn_away(Problem("bad-request", f"the header is longer than {_LONGEST_HEADER} bytes"))

    def on_headers_complete(self) -> None:
        """Answer the request."""
        self._stop_expecting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._useless = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words are no problem document
        """Refuse what is not HTTP."""
        self._turn_away(Problem("bad-request", "this is no HTTP request"))

    def on_response_complete(self) -> None:
        """Wait for the next header."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._expect_header()

    def give_up(self) -> None:
        """End the connection, with an answer if a request was begun."""
        begun = self._useless > 0
        self._stop_expecting()
        if begun:
            self._turn_away(Problem("timeout", f"the header took longer than {self._patience.seconds:g} seconds"))
        elif not self.transport.is_closing():
            self.transport.close()

    def _expect_header(self) -> None:
        self._stop_expecting()
        self._deadline = self.loop.call_later(self._patience.seconds, self.give_up)
        self._patience.begin(self)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._useless = None, 0
        self._patience.silent.pop(self, None)

    def _turn_away(self, problem: Problem) -> None:
        self._stop_expecting()
        if self.transport.is_closing():
            return
        request_id = secrets.token_hex(8)
        tell("turned away", request_id=request_id, status=problem.status)
        answer = to_answer(problem, request_id, close=True, extra={"x-request-id": request_id})
        lines = [b"HTTP/1.1 %d Refused" % answer.status, *(b": ".join(header) for header in answer.headers)]
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        self.transport.close()


def bound_protocol(header_seconds: float) -> Any:
    """Return what uvicorn makes connections with.

    Args:
        header_seconds: From the connection, or the last answer, to a whole header.
    """
    return partial(BoundProtocol, patience=Patience(header_seconds))
