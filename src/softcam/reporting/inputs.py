"""Files, folders, archives, tables and discs become a list of images, each under a safe and unique file name."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from softcam.errors import ImageError, MissingExtraError
from softcam.imaging import DecodedImage
from softcam.imaging.dicom import is_directory, list_references
from softcam.reporting.archives import SIGNATURES, Archive, find_fault
from softcam.reporting.rows import is_table, list_rows
from softcam.reporting.stored import StoredFile
from softcam.reporting.tars import TarArchive, find_tar_fault, is_tar

Frames = Literal["each"] | int


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Args:
        frames: "each" for every frame of a file that holds several, or the number of the one to take, from 1.
        draft: Whether large JPEGs are decoded at a part of their size, as long as that leaves two pixels for each one
            of the network's input. It is faster, and changes the pixels that the network sees a little: training and
            evaluation always decode the whole.

    Raises:
        ValueError: If `frames` is neither "each" nor a number from 1.
    """

    frames: Frames = "each"
    draft: bool = False

    def __post_init__(self) -> None:
        if self.frames != "each" and (not isinstance(self.frames, int) or self.frames < 1):
            raise ValueError(
                f"Expected `frames` to be 'each' or a whole number of at least 1, but got {self.frames!r}."
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """All that decides the results, as JSON gives it back."""
        return {"frames": self.frames, **({"draft": True} if self.draft else {})}


WHOLE = Reading()

_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset({"AUX", "CON", "NUL", "PRN", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})
_OUTPUTS = (".npz", ".png")
_LONGEST = 180  # bytes; leaves room for suffixes and a temporary name within the 255 of common file systems
_LARGEST_DIRECTORY = 64 * 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One image that was asked for.

    Args:
        id: Name in tables and of output files: a relative path with `/`, without `..`, unique in its run even where
            upper and lower case are the same; `#3` at its end says the frame.
        file: Where its bytes are; frames of the same file share it.
        refusal: Why it is not even opened; empty if it is.
        frame: Which image of a file with several, counted from 1; None for the only one.
    """

    id: str
    file: StoredFile
    refusal: str = ""
    frame: int | None = None

    @property
    def path(self) -> Path:
        """The file, or the archive that it is in."""
        return self.file.path

    @property
    def member(self) -> str:
        """Name within the archive at `path`; empty if it is a file of its own."""
        return "" if self.file.member is None else self.file.member.filename

    def read(self) -> bytes:
        """Return the bytes of the whole file.

        Raises:
            ImageError: If it cannot be read.
        """
        return self.file.read()

    def decode(self, *, least_side: int | None = None) -> DecodedImage:
        """Return the image.

        Args:
            least_side: Shorter side, in pixels, to which a JPEG may be reduced; None to keep every pixel.

        Raises:
            ImageError: If it cannot be decoded.
            MissingExtraError: If it is DICOM and the libraries for it are not installed.
        """
        return self.file.decode(self.frame, least_side=least_side)


@dataclass(frozen=True)
class Draft:
    """An image that is decoded at a part of its size where that is enough.

    Args:
        entry: The image.
        least_side: Shorter side, in pixels, to which it may be reduced.
    """

    entry: Entry
    least_side: int

    @property
    def id(self) -> str:
        """The name of the image."""
        return self.entry.id

    def decode(self) -> DecodedImage:
        """Return the image; the errors are those of `Entry.decode`."""
        return self.entry.decode(least_side=self.least_side)


class Listing:
    """The images that files, folders, zip archives and DICOMDIRs name, in the same order each time.

    A file's id is its name; every regular file in a folder, hidden ones apart, gets its path relative to that folder,
    every member of an archive its name there, and every file that a DICOMDIR names its path from there. Of tar archives
    only the images are taken, under the archive's name: `shard-01/0001.jpg`. A table, CSV or Parquet, names images
    relative to itself in its column `image`. Frames of a file that holds several get their number behind the name:
    `scan.dcm#3`. Ids that would be equal get `~2`, `~3`, ...
    Links to folders and links that leave the folder are refused. Archives, tables and DICOMDIRs are opened only where
    they are named themselves; within folders and archives zip archives and DICOMDIRs are refused by name.

    Each file is opened to see what it holds the first time that the list is run through to its end. Only what is
    unusual is kept, so that the memory does not grow with the number of ordinary images.

    Args:
        inputs: Files, folders, archives, tables and DICOMDIRs. What does not exist is listed too, and fails when it is
            opened.
        exclude: A folder to leave out, where results go.
        frames: "each" for all frames of a file that holds several, or the number of the one to take, from 1.
    """

    def __init__(self, inputs: Iterable[str | Path], *, exclude: Path, frames: Frames = "each") -> None:
        self._inputs = [Path(given) for given in inputs]
        self._exclude = exclude.resolve()
        self._frames = frames
        self._seen = False
        self._containers: set[int] = set()
        self._unusual: dict[int, tuple[str, int]] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries, lazily, folders and archives sorted by name."""
        taken: set[str] = set()
        for place, found in enumerate(self._list_files()):
            named = replace(found, id=_safe(found.id))
            for image in [named] if named.refusal else self._split(place, named):
                yield replace(image, id=_claim(image.id, taken))
        self._seen = True

    def _list_files(self) -> Iterator[Entry]:
        for place, given in enumerate(self._inputs):
            if given.is_dir():
                yield from _walk(given, self._exclude)
                continue
            if not self._seen and _is_container(given, StoredFile(given).peek()):
                self._containers.add(place)
            yield from _look_into(given) if place in self._containers else [Entry(given.name, StoredFile(given))]

    def _split(self, place: int, entry: Entry) -> Iterator[Entry]:
        """Yield the images of a file, one for each frame that is asked for."""
        if not self._seen and (found := _inspect(entry.file)) != ("", 1):
            self._unusual[place] = found
        refusal, count = self._unusual.get(place, ("", 1))
        if count == 1 or refusal:
            yield replace(entry, refusal=refusal)
            return
        for number in range(1, count + 1) if self._frames == "each" else (self._frames,):
            yield replace(entry, id=f"{entry.id}#{number}", frame=number)


def list_entries(inputs: Iterable[str | Path], *, exclude: Path, frames: Frames = "each") -> Iterator[Entry]:
    """Yield the images that are named, in a fixed order; the arguments are those of `Listing`."""
    return iter(Listing(inputs, exclude=exclude, frames=frames))


def summarize(entries: Iterable[Entry]) -> tuple[int, str]:
    """Return how many entries there are, and a digest that changes with their ids, sizes and times of change."""
    digest, count = hashlib.sha256(), 0
    for entry in entries:
        count += 1
        digest.update(f"{entry.id}\0{entry.refusal or entry.file.stamp}\0".encode())
    return count, digest.hexdigest()


def _is_container(given: Path, start: bytes) -> bool:
    return start.startswith(SIGNATURES) or is_tar(start) or is_table(given, start) or is_directory(start)


def _look_into(given: Path) -> Iterator[Entry]:
    """Yield what an archive, a table or a DICOMDIR holds."""
    start = StoredFile(given).peek()
    if start.startswith(SIGNATURES):
        return _unpack(given)
    if is_tar(start):
        return _unpack_tar(given)
    return _read_rows(given) if is_table(given, start) else _follow(given)


def _walk(folder: Path, exclude: Path) -> Iterator[Entry]:
    # Names, not paths: of a large folder they are held for as long as it is listed.
    root, waiting = folder.resolve(), [""]
    while waiting:
        name = waiting.pop()
        current = folder / name
        try:
            if name and current.is_symlink():
                yield _make(name, current, _judge_link(current, root))
            elif current.is_file():
                yield _make(name, current)
            elif current.is_dir() and current.resolve() != exclude:
                children = (child.name for child in current.iterdir() if not child.name.startswith("."))
                waiting += [f"{name}/{child}" if name else child for child in sorted(children, reverse=True)]
        except OSError as error:
            yield _make(name or ".", current, f"cannot be read: {(error.strerror or 'unknown').lower()}")


def _make(name: str, path: Path, refusal: str = "") -> Entry:
    return Entry(name, StoredFile(path), refusal)


def _judge_link(link: Path, root: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "link that leads nowhere"
    if not target.is_relative_to(root):
        return "link that leaves the folder"
    return "" if target.is_file() else "link to something else than a file, which is not followed"


def _unpack(path: Path) -> Iterator[Entry]:
    """Yield the members of an archive."""
    try:
        archive = Archive(path)
        members = archive.list_members()
    except ImageError as error:
        yield _make(path.name, path, str(error))
        return
    if not members:
        yield _make(path.name, path, "archive without files")
    for member in members:
        yield Entry(member.filename, StoredFile(path, archive, member), find_fault(member))


def _unpack_tar(path: Path) -> Iterator[Entry]:
    """Yield the images of a tar archive, under its own name, since those of shards may repeat each other's."""
    try:
        archive = TarArchive(path)
    except ImageError as error:
        yield _make(path.name, path, str(error))
        return
    members, fault = archive.list_members()
    for member in members:
        yield Entry(f"{path.stem}/{member.filename}", StoredFile(path, archive, member), find_tar_fault(member))
    if fault:
        yield _make(path.name, path, fault)


def _read_rows(path: Path) -> Iterator[Entry]:
    """Yield the images that a table names."""
    for image, refusal in list_rows(path):
        yield _make(image, path if refusal else path.parent / image, refusal)


def _follow(directory: Path) -> Iterator[Entry]:
    """Yield the files that a DICOMDIR names."""
    try:
        references = list_references(StoredFile(directory).read(_LARGEST_DIRECTORY))
    except (ImageError, MissingExtraError) as error:
        yield _make(directory.name, directory, str(error))
        return
    if not references:
        yield _make(directory.name, directory, "DICOM directory (DICOMDIR) without files")
    for parts in references:
        yield _locate(directory.parent, parts)


def _locate(folder: Path, parts: tuple[str, ...]) -> Entry:
    name = "/".join(parts)
    if any(part in {"", ".", ".."} or not _FORBIDDEN.isdisjoint(part) for part in parts):
        return _make(name, folder, "reference that leads out of the folder")
    path = folder.joinpath(*parts)
    if not path.exists():
        # Discs are often mounted with names in lower case.
        lower = folder.joinpath(*(part.lower() for part in parts))
        path = lower if lower.exists() else path
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        inside = False
    return _make(name, path, "" if inside else "reference that leads out of the folder")


def _inspect(file: StoredFile) -> tuple[str, int]:
    """Return why a file is not decoded, empty if it is, and how many images it holds."""
    try:
        return file.inspect()
    except (ImageError, MissingExtraError, OSError, ValueError):
        return "", 1  # said when it is decoded


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
