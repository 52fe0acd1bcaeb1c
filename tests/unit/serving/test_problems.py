"""Problems say what is wrong in the form of RFC 9457."""

from __future__ import annotations

import json

import pytest

from softcam.serving.problems import STATUSES, Problem, to_answer


@pytest.mark.parametrize("kind", STATUSES)
def test_every_kind_is_a_whole_document(kind: str) -> None:
    answer = to_answer(Problem(kind, "what is wrong"), "abc")
    body = json.loads(answer.body)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    assert body == {
        "type": f"urn:softcam:problem:{kind}",
        "title": body["title"],
        "status": STATUSES[kind],
        "detail": "what is wrong",
        "request_id": "abc",
    }
    assert body["title"]
    assert answer.status == STATUSES[kind]
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(answer.body)
    assert ("retry-after" in headers) == (STATUSES[kind] in (429, 503))
    assert ("www-authenticate" in headers) == (STATUSES[kind] == 401)
    assert "connection" not in headers


def test_a_request_that_was_not_read_ends_its_connection() -> None:
    assert (b"connection", b"close") in to_answer(Problem("too-large", ""), "", close=True).headers


def test_statuses_are_of_one_kind_each() -> None:
    assert len(set(STATUSES.values())) == len(STATUSES)
