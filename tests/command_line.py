"""`softcam` with its exit code and all that it says, in this process: the same program without the start of another."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from softcam.cli import console, main

WIDTH = 200
"""Of the terminal that messages are for, so that none is broken."""


@dataclass(frozen=True)
class Said:
    """What a command came to, named as in `subprocess.CompletedProcess`.

    Args:
        returncode: Its exit code.
        stdout: Its results.
        stderr: Its messages.
    """

    returncode: int
    stdout: str
    stderr: str


def run(*words: object) -> Said:
    """Run a command.

    Args:
        *words: What stands after `softcam`.
    """
    out, err = io.StringIO(), io.StringIO()
    width, console.MESSAGES.width = console.MESSAGES.width, WIDTH
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:  # `--help` and `--version`
                code = int(end.code or 0)
    finally:
        console.MESSAGES.width = width
    return Said(code, out.getvalue(), err.getvalue())
