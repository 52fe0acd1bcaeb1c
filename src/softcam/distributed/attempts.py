"""What a worker was doing when it died, so that an image that ends its worker does not end every worker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FOLDER = "run.partial.attempts"

_CAREFUL_FROM = 2  # deaths during a shard after which its images are taken one by one
_FATAL_FROM = 2  # deaths during one image after which it is left out


@dataclass(frozen=True)
class Attempts:
    """The record of one shard: a line per beginning, and in careful attempts a line per image begun.

    Args:
        path: The file.
    """

    path: Path

    def begin(self) -> int:
        """Record that a worker begins; return how many began before."""
        earlier = sum(line == "begin" for line in self._lines())
        self._append("begin")
        return earlier

    def begin_row(self, row: int) -> None:
        """Record that the worker begins an image."""
        self._append(str(row))

    def list_fatal(self) -> set[int]:
        """Return the images that were the last thing a worker began, at least twice."""
        lines = self._lines()
        last = [line for line, following in pairwise(lines) if following == "begin"]
        return {int(row) for row in set(last) - {"begin"} if last.count(row) >= _FATAL_FROM}

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        return [line for line in lines if line == "begin" or line.isdecimal()]

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="ascii") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())


def is_careful(earlier: int) -> bool:
    """Return whether images are taken one by one, given how many workers began the shard before."""
    return earlier >= _CAREFUL_FROM
