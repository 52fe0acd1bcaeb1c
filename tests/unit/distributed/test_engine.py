from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from softcam.distributed.cluster import _start
from softcam.distributed.engine import _check, _describe_loss
from softcam.errors import IdentityError, RunError


@pytest.mark.parametrize(("kind", "error"), [("IdentityError", IdentityError), ("RunError", RunError), ("X", RunError)])
def test_what_a_worker_says_is_raised_here(kind: str, error: type[Exception]) -> None:
    line: dict[str, Any] = {"shard": 1, "rows": 0, "fault": "the maps do not average (node a)", "kind": kind}
    with pytest.raises(error, match=r"do not average \(node a\)"):
        _check(line)
    _check({**line, "fault": ""})


def test_a_node_without_softcam_is_told_what_to_install() -> None:
    assert "extra `ray` on every node" in _describe_loss(RuntimeError("ModuleNotFoundError: No module named 'softcam'"))
    text = _describe_loss(RuntimeError("x" * 1000 + "\nthe end"))
    assert text.endswith("x the end The same command continues.")
    assert len(text) < 400


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no route to host")

    with pytest.raises(RunError, match=r"cluster at 'host:1', but got: no route to host Start one"):
        _start(SimpleNamespace(init=init), "host:1")
