"""Errors as a client sees them: RFC 9457 problem details, each kind with one status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"

STATUSES = {
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "timeout": 408,
    "too-large": 413,
    "not-an-image": 415,
    "wrong-host": 421,
    "unusable": 422,
    "too-many-requests": 429,
    "failed": 500,
    "overloaded": 503,
    "cannot-store": 507,
}
"""Kinds of problems, and the status of each."""

RETRY_SECONDS = {"too-many-requests": 1, "overloaded": 1}


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """Why a request was refused.

    Args:
        kind: A key of `STATUSES`.
        detail: What is wrong and what to do, in words that quote nothing of an image, a header or a file name.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUSES[self.kind]


@dataclass(frozen=True)
class Answer:
    """A whole answer, ready to be sent by any layer.

    Args:
        status: HTTP status.
        body: Bytes.
        headers: Names in lower case, and values.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def describe_problem(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the members of a problem document."""
    return {
        "type": f"urn:softcam:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }


def to_answer(problem: Problem, request_id: str, *, close: bool = False, extra: dict[str, str] | None = None) -> Answer:
    """Return what is sent for a problem.

    Args:
        problem: What is wrong.
        request_id: Of the request.
        close: Whether the connection ends with it, because the request was not read to its end.
        extra: Further headers.
    """
    body = json.dumps(describe_problem(problem, request_id)).encode()
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "cache-control": "no-store"}
    if problem.kind in RETRY_SECONDS:
        headers["retry-after"] = str(RETRY_SECONDS[problem.kind])
    if problem.kind == "unauthorized":
        # With Basic a browser asks for the token by itself; scripts send it as a bearer token.
        headers["www-authenticate"] = 'Basic realm="softcam: any name, the token as password", charset="UTF-8"'
    if close:
        headers["connection"] = "close"
    named = {**headers, **(extra or {})}
    return Answer(problem.status, body, tuple((name.encode(), value.encode()) for name, value in named.items()))
