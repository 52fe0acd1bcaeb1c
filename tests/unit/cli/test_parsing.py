"""What the parsers repeat, because the library is slow to import, is what the library has."""

from __future__ import annotations

from typing import get_args

import pytest

from softcam.cli.completion import _list_actions
from softcam.cli.explain import SHARE
from softcam.cli.program import create_parser
from softcam.nn import AUGMENTATIONS, regions
from softcam.predict.checks import Level


@pytest.mark.parametrize(
    ("name", "expected", "commands"), [("augment", tuple(AUGMENTATIONS), 2), ("checks", get_args(Level), 2)]
)
def test_choices_are_the_librarys(name: str, expected: tuple[str, ...], commands: int) -> None:
    found = [tuple(action.choices) for action in _list_actions(create_parser()) if action.dest == name]
    assert found == [expected] * commands


def test_the_share_of_regions_is_the_librarys() -> None:
    assert SHARE == regions.SHARE
