"""What stands before every answer: who may ask, how much they may send, and how long it may take."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from softcam.serving.problems import Answer, Problem, to_answer
from softcam.serving.settings import Access, Limits
from softcam.serving.telemetry import Telemetry, tell

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What answers without a token."""

_QUIET = OPEN_PATHS | {"/metrics", "/static/{name:path}"}
"""What is asked so often, and is so little of interest, that it is no line in the log."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
}
_SECURITY = tuple((name.encode(), value.encode()) for name, value in _HEADERS.items())


class ClientGoneError(Exception):
    """A client that does not take its answer."""


class Gate:
    """Give each request an identifier, let it pass or refuse it, and note what came of it.

    Args:
        app: What answers.
        access: Who may ask.
        limits: What a request may cost.
        telemetry: Where to count.
    """

    def __init__(self, app: Application, access: Access, limits: Limits, telemetry: Telemetry) -> None:
        self._app, self._access, self._limits, self._telemetry = app, access, limits, telemetry
        self._guard = Guard(access)
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limits, self)
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        try:
            self._guard.check(scope, exchange.headers)
            self._admit(exchange)
        except Problem as problem:
            await exchange.refuse(problem)
            self._note(exchange)
            return
        self._requests += 1
        self._telemetry.waiting.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientGoneError:
            tell("client gone", request_id=exchange.request_id)
        except Problem as problem:
            await exchange.refuse(problem)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the client gets an answer and nothing else ends
            tell("request failed", level=logging.ERROR, error=error, request_id=exchange.request_id)
            await exchange.refuse(Problem("failed", "the service failed; its log has the request under this id"))
        finally:
            self._requests -= 1
            self._bytes -= exchange.received
            self._telemetry.waiting.dec()
            self._note(exchange)

    def take(self, size: int) -> None:
        """Count bytes of a body that is being received.

        Raises:
            Problem: If all bodies together are too large.
        """
        if self._bytes + size > self._limits.max_waiting_bytes:
            raise Problem("overloaded", "other requests fill the memory for uploads; try again in a moment")
        self._bytes += size

    def _admit(self, exchange: _Exchange) -> None:
        if exchange.scope["path"] in OPEN_PATHS:
            return
        if self._requests >= self._limits.max_waiting:
            raise Problem("overloaded", "too many requests are waiting; try again in a moment")
        declared = exchange.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limits.max_bytes:
            raise Problem("too-large", f"the body is larger than {self._limits.max_bytes} bytes")

    def _note(self, exchange: _Exchange) -> None:
        route = exchange.scope.get("route")
        name = getattr(route, "path", None) or "other"
        seconds = time.perf_counter() - exchange.begun
        self._telemetry.requests.labels(name, str(exchange.status)).inc()
        self._telemetry.seconds.labels(name).observe(seconds)
        if name in _QUIET and exchange.status < 400:
            return
        tell(
            "request",
            request_id=exchange.request_id,
            method=exchange.scope["method"],
            route=name,
            status=exchange.status,
            ms=round(1000 * seconds, 1),
            received=exchange.received,
        )


class Guard:
    """Who may ask.

    Args:
        access: The rules.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._token = access.token.encode()
        self._hosts = _LOOPBACK | {host.lower() for host in access.hosts}
        self._rate = MovingWindowRateLimiter(MemoryStorage()) if access.rate is not None else None
        # Of two windows: short bursts are welcome, such as a page with its files.
        self._item = None if access.rate is None else RateLimitItemPerSecond(max(1, round(10 * access.rate)), 10)

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Let a request pass.

        Raises:
            Problem: If it may not.
        """
        # Who probes whether a service works calls it by its address.
        if scope["path"] in OPEN_PATHS:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_own(host):
            raise Problem("wrong-host", "this service is not known by the name in the Host header; see --allow-host")
        self._check_site(host, headers, scope["method"])
        client = scope.get("client")
        if self._rate and self._item and not self._rate.hit(self._item, client[0] if client else "unknown"):
            raise Problem("too-many-requests", f"more than {self._access.rate:g} requests per second; slow down")
        if self._token and not self._has_token(headers.get(b"authorization", b"")):
            raise Problem("unauthorized", "send the token as `Authorization: Bearer <token>`")

    def _is_own(self, host: str) -> bool:
        if self._token and not self._access.is_local and not self._access.hosts:
            return True
        # A page of another site can let its own name point to this machine, and would be let in by its address.
        return (host if host.endswith("]") else re.sub(r":\d+$", "", host)) in self._hosts

    def _check_site(self, host: str, headers: dict[bytes, bytes], method: str) -> None:
        # A browser sends along what it knows of the user's log-in, whichever page has made the request.
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        other = bool(origin) and origin.partition("://")[2] != host
        cross = headers.get(b"sec-fetch-site", b"none") in (b"cross-site", b"same-site")
        if method not in ("GET", "HEAD") and (other or cross):
            raise Problem("forbidden", "requests from pages of other sites are refused")

    def _has_token(self, authorization: bytes) -> bool:
        scheme, _, value = authorization.partition(b" ")
        shown = value.strip()
        if scheme.lower() == b"basic":
            try:
                shown = base64.b64decode(shown, validate=True).partition(b":")[2]
            except binascii.Error:
                shown = b""
        elif scheme.lower() != b"bearer":
            shown = b""
        return hmac.compare_digest(shown, self._token)


class _Exchange:
    """One request and its answer, counted and timed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits, gate: Gate) -> None:
        self.scope, self.begun = scope, time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = _choose_id(self.headers.get(b"x-request-id", b""))
        self.received, self.status = 0, 0
        self._receive, self._send, self._limits, self._gate = receive, send, limits, gate
        self._whole = False

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            Problem: If the body is too large or too slow.
        """
        if self._whole:
            return await self._receive()
        left = self.begun + self._limits.body_seconds - time.perf_counter()
        try:
            async with asyncio.timeout(max(left, 0.001)):
                message = await self._receive()
        except TimeoutError:
            raise Problem("timeout", f"the body took longer than {self._limits.body_seconds:g} seconds") from None
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        if self.received + size > self._limits.max_bytes:
            raise Problem("too-large", f"the body is larger than {self._limits.max_bytes} bytes")
        self._gate.take(size)
        self.received += size
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Raises:
            ClientGoneError: If the client does not take it.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            kept = [header for header in _SECURITY if header[0] not in given]
            # What is left of a body that nobody reads must not keep the connection.
            close = [(b"connection", b"close")] if not self._whole and self._has_body() else []
            message["headers"] = [*message["headers"], *kept, *close, (b"x-request-id", self.request_id.encode())]
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await self._send(message)
        except TimeoutError:
            raise ClientGoneError from None

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, if no answer has begun."""
        if self.status:
            return
        await self._answer(to_answer(problem, self.request_id))

    def _has_body(self) -> bool:
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"

    async def _answer(self, answer: Answer) -> None:
        try:
            await self.send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
            await self.send({"type": "http.response.body", "body": answer.body})
        except ClientGoneError:
            return


def _choose_id(given: bytes) -> str:
    text = given.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else secrets.token_hex(8)
