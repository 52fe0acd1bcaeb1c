from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softcam.distributed.finish import fail_duplicates
from softcam.distributed.shards import Layout, list_done, mark_frame, name_shard, remove_leftovers, write_shard
from softcam.errors import RunError
from softcam.imaging import Geometry
from softcam.predict import Members, Prediction

LAYOUT = Layout(("a", "b"), (2, 3), "float32", "f1")
GEOMETRY = Geometry(20, 30, 10, 10, 2.0, 2.0, 5.0, 0.0)


def make(name: str, digest: str, *, scale: float = 1.0) -> Prediction:
    maps = np.arange(12, dtype=np.float32).reshape(2, 2, 3) * np.float32(scale)
    scores = {"probabilities": np.array([0.25, 0.75], np.float32), "logits": maps.mean((1, 2))}
    more = {"geometry": GEOMETRY, "sum_error": 1e-7, "digest": digest, "spacing": (0.5, 0.25)}
    return Prediction(name, "ok", ("a", "b"), predicted="b", maps=maps, **scores, **more)


def test_rows_come_back_and_failed_ones_are_empty(tmp_path: Path) -> None:
    rows = [make("x", "d1"), Prediction("y", "failed", ("a", "b"), "file is empty")]
    write_shard(name_shard(tmp_path, 0), rows, LAYOUT)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.schema.field("evidence").type == pa.list_(pa.field("element", pa.float32()), 12)
    good, bad = table.to_pylist()
    assert (good["id"], good["status"], good["reason"], good["predicted"]) == ("x", "ok", "", "b")
    assert (good["probabilities"], good["logits"]) == ([0.25, 0.75], [2.5, 8.5])
    assert (good["evidence"], good["h"], good["w"]) == (list(map(float, range(12))), 2, 3)
    assert (Geometry.from_json(good["geometry"]), good["spacing"]) == (GEOMETRY, [0.5, 0.25])
    assert (bad["id"], bad["status"], bad["reason"], bad["digest"]) == ("y", "failed", "file is empty", "")
    assert all(bad[name] is None for name in ("predicted", "h", "geometry"))
    assert all(np.isnan(bad[name]).all() for name in ("logits", "probabilities", "evidence", "spacing"))
    assert json.loads(table.schema.metadata[b"softcam"]) == {"classes": ["a", "b"], "grid": [2, 3], "fingerprint": "f1"}


def test_evidence_is_stored_as_asked_for(tmp_path: Path) -> None:
    write_shard(tmp_path / "h.parquet", [make("x", "d")], Layout(("a", "b"), (2, 3), "float16", "f"))
    assert pq.read_table(tmp_path / "h.parquet")["evidence"].type.value_type == pa.float16()
    write_shard(tmp_path / "n.parquet", [make("x", "d")], Layout(("a", "b"), (2, 3), "none", "f"))
    assert "evidence" not in pq.read_table(tmp_path / "n.parquet").column_names


def test_what_does_not_fit_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="below 65504"):
        write_shard(tmp_path / "a.parquet", [make("x", "d", scale=1e5)], Layout(("a", "b"), (2, 3), "float16", "f"))
    with pytest.raises(RunError, match=r"shape \(2, 3, 3\), but got \(2, 2, 3\)"):
        write_shard(tmp_path / "a.parquet", [make("x", "d")], Layout(("a", "b"), (3, 3), "float32", "f"))
    assert list(tmp_path.iterdir()) == []


def test_duplicates_fail_across_files_and_again_changes_nothing(tmp_path: Path) -> None:
    write_shard(name_shard(tmp_path, 0), [make("x", "d1"), make("y", "d2")], LAYOUT)
    write_shard(name_shard(tmp_path, 1), [make("z", "d3"), make("x2", "d1"), make("x3", "d1")], LAYOUT)
    fail_duplicates(tmp_path, 2)
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["reason"] for row in rows] == ["", "", "", "duplicate of x", "duplicate of x"]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "failed", "failed"]
    assert (rows[3]["digest"], rows[2]["logits"]) == ("d1", [2.5, 8.5])
    assert all(np.isnan(rows[3][name]).all() for name in ("logits", "probabilities", "evidence", "spacing"))
    before = {path: path.read_bytes() for path in (tmp_path / "predictions.parquet").iterdir()}
    fail_duplicates(tmp_path, 2)
    assert {path: path.read_bytes() for path in before} == before


def test_only_whole_files_count_and_leftovers_go(tmp_path: Path) -> None:
    write_shard(name_shard(tmp_path, 7), [make("x", "d")], LAYOUT)
    left = name_shard(tmp_path, 8).with_name(".part-000008.0123abcd.partial.parquet")
    left.write_bytes(b"half")
    assert list_done(tmp_path) == {7}
    remove_leftovers(tmp_path)
    assert (left.exists(), name_shard(tmp_path, 7).exists()) == (False, True)


def test_frames_of_a_file_are_no_duplicates() -> None:
    assert mark_frame(make("x", "d"), 2).digest == "d#2"
    assert mark_frame(make("x", "d"), None).digest == "d"


def test_sets_have_a_column_where_the_model_has_them(tmp_path: Path) -> None:
    assert "prediction_set" not in LAYOUT.schema.names
    layout = replace(LAYOUT, temperature=1.5, sets=True)
    rows = [
        replace(make(f"i{index}", f"d{index}"), prediction_set=found) for index, found in enumerate([("b", "a"), ()])
    ]
    write_shard(name_shard(tmp_path, 0), [*rows, Prediction("y", "failed", ("a", "b"), "bad")], layout)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table["prediction_set"].to_pylist() == ["b;a", "", None]
    write_shard(name_shard(tmp_path, 1), [make("again", "d0")], layout)
    fail_duplicates(tmp_path, 2)
    assert pq.read_table(name_shard(tmp_path, 1))["prediction_set"].to_pylist() == [None]


def test_warnings_have_a_column_where_images_are_checked(tmp_path: Path) -> None:
    assert "warnings" not in LAYOUT.schema.names
    rows = [make("x", "d"), replace(make("y", "e"), warnings=("size: grey", "features: far"))]
    rows.append(Prediction("z", "failed", ("a", "b"), "refused, size: grey"))
    write_shard(name_shard(tmp_path, 0), rows, replace(LAYOUT, warnings=True))
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table["warnings"].to_pylist() == ["", "size: grey;features: far", None]


def test_what_members_disagree_in_has_columns_where_there_are_some(tmp_path: Path) -> None:
    assert "std" not in LAYOUT.schema.names
    maps = np.zeros((2, 2, 2, 3), np.float32)
    maps[1, 0] = 1
    row = replace(make("x", "d"), members=Members(maps.mean((2, 3)), maps))
    rows = [row, Prediction("y", "failed", ("a", "b"), "bad"), replace(row, id="z")]
    write_shard(name_shard(tmp_path, 0), rows, replace(LAYOUT, members=True))
    fail_duplicates(tmp_path, 1)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table["std"].to_pylist()[0] == pytest.approx([0.5**0.5, 0])
    assert table["std_margin"].to_pylist() == [pytest.approx(0.5**0.5), None, None]
    assert np.isnan(table["std"].to_pylist()[1:]).all()
