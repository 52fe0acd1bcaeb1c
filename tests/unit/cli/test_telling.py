from __future__ import annotations

import logging

import pytest

from softcam.cli import console


def test_decisions_of_the_library_go_to_stderr_while_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("softcam.predict.choice")
    with console.telling("softcam.predict"):
        logger.info("backend %s", "torch [1]")
        logger.debug("not this")
    logger.info("nor this")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "backend torch [1]\n")
    assert logging.getLogger("softcam.predict").handlers == []
    assert logging.getLogger("softcam.predict").level == logging.NOTSET
