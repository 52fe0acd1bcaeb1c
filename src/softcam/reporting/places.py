"""Where an image is, as text that another process, or another machine with the same files, can open again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from softcam.errors import ImageError
from softcam.imaging import DecodedImage
from softcam.reporting.archives import Archive
from softcam.reporting.inputs import Entry
from softcam.reporting.stored import StoredFile
from softcam.reporting.tars import TarArchive, TarMember, is_tar

_OPEN_ARCHIVES = 8


@dataclass(frozen=True)
class Lost:
    """An image whose archive can no longer be opened.

    Args:
        id: Its name.
        reason: Why.
    """

    id: str
    reason: str

    def decode(self) -> DecodedImage:
        """Raise the reason as an `ImageError`."""
        raise ImageError(self.reason)


def describe_place(entry: Entry) -> str:
    """Return the place of an image as JSON; `open_places` opens it.

    Args:
        entry: The image.
    """
    values: dict[str, object] = {"id": entry.id, "path": str(entry.path.absolute())}
    if entry.frame is not None:
        values["frame"] = entry.frame
    if (member := entry.file.member) is not None:
        size = getattr(member, "file_size", 0)
        values |= {"member": member.filename, "offset": member.header_offset, "size": size}
    return json.dumps(values)


def open_places(places: Iterable[str]) -> list[Entry | Lost]:
    """Return images by their places, in order; frames of the same file share what is read of it.

    Args:
        places: Texts of `describe_place`.
    """
    files: dict[tuple[str, int | None], StoredFile] = {}
    opened: list[Entry | Lost] = []
    for text in places:
        values = json.loads(text)
        key = values["path"], values.get("offset")
        try:
            file = files[key] if key in files else files.setdefault(key, _open_file(values))
            opened.append(Entry(values["id"], file, frame=values.get("frame")))
        except (ImageError, OSError) as error:
            reason = str(error) if isinstance(error, ImageError) else "archive cannot be read"
            opened.append(Lost(values["id"], reason))
    return opened


def _open_file(values: dict[str, object]) -> StoredFile:
    path = Path(str(values["path"]))
    if "member" not in values:
        return StoredFile(path)
    offset, size = int(str(values["offset"])), int(str(values["size"]))
    archive = _open_archive(path, path.stat().st_mtime_ns)
    if isinstance(archive, TarArchive):
        return StoredFile(path, archive, TarMember(str(values["member"]), size, offset))
    return StoredFile(path, archive, archive.find(offset))


@lru_cache(_OPEN_ARCHIVES)
def _open_archive(path: Path, _changed: int) -> Archive | TarArchive:
    return TarArchive(path) if is_tar(StoredFile(path).peek()) else Archive(path)
