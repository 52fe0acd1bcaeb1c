"""Files and folders become a list of images, each under an id that is a safe and unique file name."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset({"AUX", "CON", "NUL", "PRN", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})
_OUTPUTS = (".npz", ".png")
_LONGEST = 180  # bytes; leaves room for suffixes and a temporary name within the 255 of common file systems


@dataclass(frozen=True)
class Entry:
    """One image that was asked for.

    Args:
        id: Name in tables and of output files: a relative path with `/`, without `..`, unique in its run even where
            upper and lower case are the same.
        path: Where it is read from.
        refusal: Why it is not even opened; empty if it is.
    """

    id: str
    path: Path
    refusal: str = ""


def list_entries(inputs: Iterable[str | Path], *, exclude: Path) -> Iterator[Entry]:
    """Yield the images that files and folders name, in a fixed order.

    A file's id is its name; every regular file in a folder, hidden ones apart, gets its path relative to that folder.
    Ids that would be equal get `~2`, `~3`, ... Links to folders and links that leave the folder are refused.

    Args:
        inputs: Files and folders. What does not exist is listed too, and fails when it is opened.
        exclude: A folder to leave out, where results go.

    Yields:
        Entries, lazily, folders sorted by name.
    """
    taken: set[str] = set()
    for given in map(Path, inputs):
        found = _walk(given, exclude.resolve()) if given.is_dir() else [Entry(given.name, given)]
        for entry in found:
            yield replace(entry, id=_claim(_safe(entry.id), taken))


def summarize(entries: Iterable[Entry]) -> tuple[int, str]:
    """Return how many entries there are, and a digest that changes with their ids, sizes and times of change."""
    digest, count = hashlib.sha256(), 0
    for entry in entries:
        count += 1
        digest.update(f"{entry.id}\0{_stamp(entry)}\0".encode())
    return count, digest.hexdigest()


def _walk(folder: Path, exclude: Path) -> Iterator[Entry]:
    root, waiting = folder.resolve(), [folder]
    while waiting:
        current = waiting.pop()
        name = current.relative_to(folder).as_posix()
        try:
            if current != folder and current.is_symlink():
                yield Entry(name, current, _judge_link(current, root))
            elif current.is_file():
                yield Entry(name, current)
            elif current.is_dir() and current.resolve() != exclude:
                children = [child for child in current.iterdir() if not child.name.startswith(".")]
                waiting.extend(sorted(children, reverse=True))
        except OSError as error:
            yield Entry(name, current, f"cannot be read: {(error.strerror or 'unknown').lower()}")


def _judge_link(link: Path, root: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "link that leads nowhere"
    if not target.is_relative_to(root):
        return "link that leaves the folder"
    return "" if target.is_file() else "link to something else than a file, which is not followed"


def _safe(name: str) -> str:
    *folders, file = PurePosixPath(name).parts or ("_",)
    return "/".join([*(_safe_part(part, folder=True) for part in folders), _safe_part(file)])


def _safe_part(part: str, *, folder: bool = False) -> str:
    """Return a name that every common file system takes, and that cannot be taken for one of our own files."""
    text = "".join("_" if char in _FORBIDDEN or not char.isprintable() else char for char in part)
    # A leading dot marks our temporary files; Windows drops dots and blanks at the end.
    text = "_" + text[1:] if text.startswith(".") else text
    if text != text.rstrip(" .") or text.partition(".")[0].upper() in _RESERVED:
        text += "_"
    if folder and text.lower().endswith(_OUTPUTS):
        text += "~"  # `a` beside a folder `a.npz` would need one name for a file and a folder
    if len(text.encode()) <= _LONGEST:
        return text
    mark = hashlib.sha256(os.fsencode(part)).hexdigest()[:12]
    return f"{text.encode()[: _LONGEST - 30].decode(errors='ignore')}~{mark}{PurePosixPath(text).suffix[:4]}"


def _claim(name: str, taken: set[str]) -> str:
    """Return the name, changed if it is taken, and take it."""
    path = PurePosixPath(name)
    number, candidate = 1, name
    while (key := unicodedata.normalize("NFC", candidate).casefold()) in taken:
        number += 1
        candidate = path.with_name(f"{path.stem}~{number}{path.suffix}").as_posix()
    taken.add(key)
    return candidate


def _stamp(entry: Entry) -> str:
    if entry.refusal:
        return entry.refusal
    try:
        status = entry.path.stat()
    except (OSError, ValueError):
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"
