from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from softcam.imaging.records import read_record


@dataclass(frozen=True)
class Record:
    width: int
    height: int = 3
    names: list[str] = field(default_factory=list)


def test_defaults_may_be_left_out() -> None:
    assert read_record(Record, {"width": 2}) == Record(2, 3, [])
    assert read_record(Record, {"width": 2, "height": 5, "names": ["a"]}) == Record(2, 5, ["a"])


def test_an_unknown_key_is_refused_with_the_closest_one() -> None:
    with pytest.raises(ValueError, match=r"keys of Record to be among width, height, names, but got 'widht'.*'width'"):
        read_record(Record, {"widht": 2})


def test_a_key_like_no_other_gets_no_guess() -> None:
    with pytest.raises(ValueError, match=r"but got 'zzz'\. Remove it"):
        read_record(Record, {"width": 2, "zzz": 2})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TypeError, match="every field of Record, but width is missing"):
        read_record(Record, {"height": 2})


def test_only_mappings_are_read() -> None:
    with pytest.raises(TypeError, match="dictionary of Record, but got list"):
        read_record(Record, [("width", 2)])  # type: ignore[arg-type]
