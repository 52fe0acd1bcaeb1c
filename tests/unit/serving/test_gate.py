"""Who is let in, how much they may send, and what every answer carries."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from softcam.serving.gate import Gate, Guard
from softcam.serving.problems import Problem
from softcam.serving.settings import Access, Limits
from softcam.serving.telemetry import Telemetry

TOKEN = "correct horse battery"  # noqa: S105 - of these tests
BASIC = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()


def make_scope(path: str = "/v1/explain", method: str = "POST", **headers: str) -> dict[str, Any]:
    named = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    return {"type": "http", "path": path, "method": method, "headers": encoded, "client": ("192.0.2.7", 1)}


def ask(guard: Guard, **kwargs: str) -> str:
    """Return the kind of problem, empty if the request passes."""
    scope = make_scope(**kwargs)
    try:
        guard.check(scope, dict(scope["headers"]))
    except Problem as problem:
        return problem.kind
    return ""


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_this_machine_is_known_by_its_own_names(host: str) -> None:
    assert ask(Guard(Access()), host=host) == ""


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost@evil"])
def test_a_name_that_points_here_is_not_enough(host: str) -> None:
    assert ask(Guard(Access()), host=host) == "wrong-host"
    assert ask(Guard(Access(token=TOKEN)), host=host, authorization=f"Bearer {TOKEN}") == "wrong-host"


def test_further_names_can_be_given() -> None:
    guard = Guard(Access(hosts=("Viewer.example",)))
    assert ask(guard, host="viewer.example:443") == ""
    assert ask(guard, host="other.example") == "wrong-host"


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        (f"Bearer {TOKEN}", ""),
        (f"bearer {TOKEN}", ""),
        (f"Basic {BASIC}", ""),
        ("", "unauthorized"),
        ("Bearer", "unauthorized"),
        (f"Bearer {TOKEN}x", "unauthorized"),
        (f"Bearer {TOKEN[:-1]}", "unauthorized"),
        (f"Token {TOKEN}", "unauthorized"),
        ("Basic %%%", "unauthorized"),
        (f"Basic {base64.b64encode(TOKEN.encode()).decode()}", "unauthorized"),
        ("Bearer \xff\xfe", "unauthorized"),
    ],
)
def test_a_token_opens_all(authorization: str, kind: str) -> None:
    guard = Guard(Access("0.0.0.0", TOKEN))  # noqa: S104 - what the token is for
    assert ask(guard, authorization=authorization, host="any.example") == kind


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token(path: str) -> None:
    assert ask(Guard(Access("0.0.0.0", TOKEN)), path=path, method="GET") == ""  # noqa: S104 - as above


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/static/main.js", "/openapi.json", "/v1/model", "/healthz/", "//healthz"]
)
def test_nothing_else_is_open(path: str) -> None:
    assert ask(Guard(Access("0.0.0.0", TOKEN)), path=path, method="GET") == "unauthorized"  # noqa: S104 - as above


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"origin": "http://localhost:8000"}, ""),
        ({"origin": "http://localhost:8001"}, "forbidden"),
        ({"origin": "https://evil.example"}, "forbidden"),
        ({"origin": "null"}, "forbidden"),
        ({"sec_fetch_site": "same-origin"}, ""),
        ({"sec_fetch_site": "none"}, ""),
        ({"sec_fetch_site": "cross-site"}, "forbidden"),
        ({"sec_fetch_site": "same-site"}, "forbidden"),
    ],
)
def test_pages_of_other_sites_cannot_ask(headers: dict[str, str], kind: str) -> None:
    assert ask(Guard(Access()), **headers) == kind


def test_links_from_other_sites_work() -> None:
    assert ask(Guard(Access()), method="GET", path="/", sec_fetch_site="cross-site") == ""


def test_a_client_that_asks_too_often_waits() -> None:
    guard = Guard(Access(rate=0.5))
    assert [ask(guard) for _ in range(6)] == [""] * 5 + ["too-many-requests"]
    scope = make_scope()
    scope["client"] = ("192.0.2.8", 1)
    guard.check(scope, dict(scope["headers"]))
    assert ask(guard, path="/healthz", method="GET") == ""


class Exchange:
    """Drive a gate by hand: a body in parts, an application, and what was sent."""

    def __init__(self, app: Callable[..., Any], parts: tuple[bytes, ...] = (b"",), **limits: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.pause = 0.0
        self.slow_client = 0.0
        self._parts = list(parts)
        self.gate = Gate(app, Access(), Limits(**limits), Telemetry())

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause)
        body = self._parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self._parts)}

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(self.slow_client)
        self.sent.append(message)

    def run(self, scope: dict[str, Any] | None = None) -> Exchange:
        asyncio.run(self.gate(scope or make_scope(), self.receive, self.send))
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


async def read_all(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(size).encode()})


def test_an_answer_carries_what_keeps_browsers_safe() -> None:
    found = Exchange(read_all, (b"ab", b"c")).run(make_scope(x_request_id="my-id.7"))
    assert found.status == 200
    assert found.sent[1]["body"] == b"3"
    assert found.headers["x-request-id"] == "my-id.7"
    assert found.headers["content-type"] == "text/plain"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in found.headers["content-security-policy"]
    assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a\nb", "<script>", ""])
def test_an_identifier_that_is_none_is_replaced(given: str) -> None:
    found = Exchange(read_all).run(make_scope(x_request_id=given)).headers["x-request-id"]
    assert found != given
    assert len(found) == 16


def test_a_body_is_bounded_by_what_it_says_and_by_what_comes() -> None:
    assert Exchange(read_all, max_bytes=3).run(make_scope(content_length="4")).status == 413
    assert Exchange(read_all, max_bytes=3).run(make_scope(content_length="three")).status == 413
    chunked = Exchange(read_all, (b"ab", b"cd"), max_bytes=3).run(make_scope(transfer_encoding="chunked"))
    assert chunked.status == 413
    assert chunked.headers["connection"] == "close"
    assert Exchange(read_all, (b"ab", b"c"), max_bytes=3).run().status == 200


def test_all_bodies_together_are_bounded() -> None:
    assert Exchange(read_all, (b"ab", b"cd"), max_waiting_bytes=3).run().status == 503
    exchange = Exchange(read_all, (b"ab",), max_waiting_bytes=3).run()
    exchange._parts = [b"ab"]
    assert exchange.run().sent[-2]["status"] == 200, "what was received before is given back"


def test_a_body_has_its_time() -> None:
    exchange = Exchange(read_all, (b"a",) * 50, body_seconds=0.05)
    exchange.pause = 0.02
    found = exchange.run(make_scope(content_length="50"))
    assert found.status == 408
    assert found.headers["connection"] == "close"


def test_a_client_that_does_not_take_its_answer_is_left() -> None:
    exchange = Exchange(read_all, send_seconds=0.02)
    exchange.slow_client = 5
    exchange.run()
    assert exchange.sent == []


def test_too_many_requests_at_a_time_are_told_to_come_back() -> None:
    async def run() -> tuple[Exchange, Exchange]:
        inside = asyncio.Event()
        leave = asyncio.Event()

        async def hold(scope: Any, receive: Any, send: Any) -> None:
            inside.set()
            await leave.wait()
            await read_all(scope, receive, send)

        first = Exchange(hold, max_waiting=1)
        task = asyncio.create_task(first.gate(make_scope(), first.receive, first.send))
        await inside.wait()
        second = Exchange(hold)
        second.gate = first.gate
        await second.gate(make_scope(), second.receive, second.send)
        health = asyncio.create_task(first.gate(make_scope("/healthz", "GET"), second.receive, second.send))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(task, health)
        return first, second

    first, second = asyncio.run(run())
    assert (first.status, second.status) == (200, 503)
    assert second.headers["retry-after"] == "1"
    assert second.sent[2]["status"] == 200, "health answers however much there is to do"


def test_an_error_is_an_answer_and_a_line_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: Any) -> None:
        raise ValueError("MARKED^PATIENT")

    with caplog.at_level(logging.INFO, "softcam.serving"):
        found = Exchange(fail).run()
    assert found.status == 500
    assert "MARKED" not in found.sent[1]["body"].decode()
    assert json.loads(found.sent[1]["body"])["request_id"] == found.headers["x-request-id"]
    from softcam.serving.telemetry import JsonFormatter  # noqa: PLC0415 - what turns records into lines

    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert any('"error": "ValueError"' in line for line in lines)
    assert not any("MARKED" in line for line in lines)


def test_other_protocols_are_not_answered() -> None:
    exchange = Exchange(read_all)
    asyncio.run(exchange.gate({"type": "websocket"}, exchange.receive, exchange.send))
    assert exchange.sent == []
