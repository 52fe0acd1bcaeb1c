"""Every malformed file is refused for the expected reason, quickly, and without a word of what it holds."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from softcam.errors import ImageError
from softcam.imaging import DecodeLimits, decode_image

pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")


def load_corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus", Path(__file__).with_name("corpus.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MALFORMED = list(load_corpus().list_malformed())


def test_there_are_enough_and_each_has_its_name() -> None:
    names = [found.name for found in MALFORMED]
    assert len(names) >= 300
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("found", MALFORMED, ids=lambda found: found.name)
def test_it_is_refused(found: object) -> None:
    begun = time.perf_counter()
    with pytest.raises(ImageError) as caught:
        decode_image(found.content, limits=DecodeLimits(max_pixels=50_000_000))  # type: ignore[attr-defined]
    assert re.search(found.reason, str(caught.value)), str(caught.value)  # type: ignore[attr-defined]
    assert "MARKED" not in str(caught.value)
    assert time.perf_counter() - begun < 20
