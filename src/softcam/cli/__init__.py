"""The command line: parse, call one function, print."""

from __future__ import annotations

from softcam.cli.program import main

__all__ = ["main"]
