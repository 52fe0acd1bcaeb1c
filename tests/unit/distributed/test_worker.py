from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from softcam.distributed.plan import STATE, Plan
from softcam.distributed.shards import Layout
from softcam.distributed.worker import Job, ShardWorker


def work(tmp_path: Path, **changes: Any) -> str:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / STATE).write_text(json.dumps({"token": "right"}))
    values: dict[str, Any] = {
        "model": str(tmp_path),
        "out": str(out),
        "plan": Plan(out / "plan", 1, 1),
        "layout": Layout(("a",), (1, 1), "none", "f"),
        "predictor": {},
        "threads": 1,
        "token": "right",
        "visible": (),
        "open_places": list,
    }
    (fault,) = ShardWorker(Job(**{**values, **changes}))({"shard": [0]})["fault"]
    return str(fault)


@pytest.mark.parametrize("name", ["model", "out"])
def test_a_node_without_the_shared_folder_says_so(tmp_path: Path, name: str) -> None:
    assert "Expected every node to see /absent, but nothing is there. Put model" in work(tmp_path, **{name: "/absent"})
    assert "to see /absent/images" in work(tmp_path, visible=("/absent/images",))


def test_a_folder_of_the_same_name_is_not_the_shared_one(tmp_path: Path) -> None:
    assert "but another folder is there" in work(tmp_path, token="other")  # noqa: S106 - of a folder


def test_another_version_is_named(tmp_path: Path) -> None:
    assert "Expected softcam 0.0.0 on every node, but got" in work(tmp_path, version="0.0.0")


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    assert "config.json" in work(tmp_path)
