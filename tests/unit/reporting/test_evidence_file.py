from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np

from softcam.imaging import Geometry, Preprocessing
from softcam.predict import Prediction
from softcam.reporting.evidence_file import encode_evidence

MAPS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
PREDICTION = Prediction(
    "x", "ok", ("a", "ä b", "=c"), logits=MAPS.mean((1, 2)), maps=MAPS, geometry=Preprocessing(size=8).locate(8, 9)
)


def read(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def test_numpy_reads_what_was_written() -> None:
    found = read(encode_evidence(PREDICTION))
    assert list(found) == ["maps", "logits", "classes", "geometry"]
    np.testing.assert_array_equal(found["maps"], MAPS)
    np.testing.assert_array_equal(found["logits"], MAPS.mean((1, 2)))
    assert (found["maps"].dtype, found["logits"].dtype) == (np.float32, np.float32)
    assert found["classes"].tolist() == ["a", "ä b", "=c"]
    assert Geometry.from_json(str(found["geometry"])) == PREDICTION.geometry


def test_spacing_is_there_where_it_is_known() -> None:
    assert read(encode_evidence(replace(PREDICTION, spacing=(0.5, 0.25))))["spacing"].tolist() == [0.5, 0.25]


def test_numbers_are_stored_and_names_packed() -> None:
    many = replace(PREDICTION, classes=tuple(f"a rather long name {i}" for i in range(500)))
    content = encode_evidence(many)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {member.filename: member.compress_type for member in archive.infolist()}
        names = archive.getinfo("classes.npy")
    text, numbers = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED
    assert kinds == {"maps.npy": numbers, "logits.npy": numbers, "classes.npy": text, "geometry.npy": text}
    assert names.compress_size * 10 < names.file_size


def test_the_same_prediction_gives_the_same_bytes() -> None:
    assert encode_evidence(PREDICTION) == encode_evidence(replace(PREDICTION))
