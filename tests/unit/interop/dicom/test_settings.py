from __future__ import annotations

import subprocess
import sys

import pytest

import softcam.interop.dicom as room
from softcam.errors import MissingExtraError
from softcam.interop.dicom import ModelIdentity, ObjectSettings, RunKey


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kinds": ("map", "movie")},
            r"different ones of map, segmentation, report, capture, but got \('map', 'movie'\)",
        ),
        ({"kinds": ()}, "different ones of"),
        ({"kinds": ("map", "map")}, "different ones of"),
        ({"threshold": 0.0}, r"`threshold` to be in \(0, 1\], but got 0\.0"),
        ({"threshold": 1.01}, r"`threshold` to be in \(0, 1\], but got 1\.01"),
        ({"max_regions": 0}, "`max_regions` to be at least 1, but got 0"),
        ({"max_classes": 0}, "`max_classes` to be at least 1, but got 0"),
        ({"color_limit": 0.0}, "`color_limit` to be positive and finite"),
        ({"color_limit": float("inf")}, "`color_limit` to be positive and finite"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectSettings(**values)  # type: ignore[arg-type]


def test_a_model_needs_a_name_and_a_fingerprint() -> None:
    with pytest.raises(ValueError, match="`name` to say what the model is"):
        ModelIdentity("  ", "a" * 64)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        ModelIdentity("net", "a" * 63)
    assert len(ModelIdentity("n" * 99, "a" * 64).title) == 64


def test_a_key_gives_the_same_identifier_for_the_same_text_and_hides_itself() -> None:
    key, other = RunKey(b"k" * 32), RunKey(b"o" * 32)
    uid = key.derive_uid("uid", "1.2.3")
    assert uid == RunKey(b"k" * 32).derive_uid("uid", "1.2.3")
    assert (
        len({uid, key.derive_uid("uid", "1.2.4"), key.derive_uid("x", "1.2.3"), other.derive_uid("uid", "1.2.3")}) == 4
    )
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert "kkk" not in repr(key)
    assert RunKey() != RunKey()
    with pytest.raises(ValueError, match="32 bytes, but got 2"):
        RunKey(b"ab")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    monkeypatch.delitem(sys.modules, "softcam.interop.dicom.store", raising=False)
    monkeypatch.setitem(sys.modules, "softcam.interop.dicom.privacy", None)
    monkeypatch.delitem(vars(room), "Deidentifier", raising=False)
    monkeypatch.setitem(sys.modules, "softcam.interop.dicom.source", None)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        room.nothing  # noqa: B018
    monkeypatch.delitem(sys.modules, "softcam.interop.dicom.privacy")
    monkeypatch.setitem(sys.modules, "dicomanonymizer", None)
    with pytest.raises(MissingExtraError, match=r"'dicomanonymizer' to be installed.*softcam\[dicom\]"):
        room.Deidentifier  # noqa: B018


def test_importing_the_room_imports_no_library() -> None:
    program = "import sys, softcam.interop.dicom, softcam.interop; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pydicom", "highdicom", "pynetdicom", "dicomanonymizer", "huggingface_hub", "torch"}
