"""Files and folders that appear whole or not at all, and the digests of files."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it is flushed to disk and renamed, on failure removed.

    Args:
        path: The final name. Its folder is created if needed.

    Yields:
        A name in the same folder and with the same suffix, to be written by the caller.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _name_temporary(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Args:
        path: The final name. Its folder is created if needed.
        content: Bytes, or text that is written as UTF-8.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, without waiting for the disk.

    For many files that a later one refers to: call `flush_disks` before that one is written.

    Args:
        path: The final name, in a folder that exists.
        content: Bytes.
    """
    temporary = _name_temporary(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class StagedFile:
    """A file that is written, and neither on disk for sure nor under its name.

    Args:
        temporary: Where it is.
        path: Its final name, in the same folder.
    """

    temporary: Path
    path: Path

    def discard(self) -> None:
        """Remove it, if it is still there."""
        self.temporary.unlink(missing_ok=True)


def stage(path: Path, content: bytes) -> StagedFile:
    """Write a file that `publish` will give its name.

    Args:
        path: The final name. Its folder is created if needed.
        content: Bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = StagedFile(_name_temporary(path), path)
    try:
        staged.temporary.write_bytes(content)
    except BaseException:
        staged.discard()
        raise
    return staged


def publish(files: Sequence[StagedFile]) -> None:
    """Flush files to disk, then give them their names, which last once `flush_folder` was called for their folders.

    A disk takes many files that are flushed one right after the other about as fast as one of them.

    Args:
        files: What `stage` returned.
    """
    for file in files:
        _flush(file.temporary)
    for file in files:
        file.temporary.replace(file.path)


def flush_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    _flush(folder)


def flush_disks() -> None:
    """Wait until everything that was written so far is on disk, where the system can be asked for that."""
    if hasattr(os, "sync"):
        os.sync()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success it takes the name of `path`, on failure it is removed.

    What a process left there that was killed goes as well. A folder that was there before is replaced. It is on disk at
    every moment: as `path`, or as `.<name>.<token>.old` while the two change places.

    Args:
        path: The final name. Its parents are created if needed.

    Yields:
        An empty folder beside `path`, to be filled by the caller.
    """
    with _temporary_folder(path) as new:
        yield new
        _exchange(new, path, new.with_suffix(".old"))


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` for files that belong together; on success they move beside `path`.

    The one named as `path` moves last, so that who sees it finds the others. On failure nothing is left behind, and
    what a process left there that was killed goes as well; subfolders are never kept.

    Args:
        path: The final name of the file that refers to the others. Its folder is created if needed.

    Yields:
        A folder in which the caller writes files under their final names.
    """
    with _temporary_folder(path) as folder:
        yield folder
        files = sorted((file for file in folder.iterdir() if file.is_file()), key=lambda file: file.name == path.name)
        for file in files:
            _flush(file)
        for file in files:
            file.replace(path.with_name(file.name))
        flush_folder(path.parent)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _name_temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` and keep it from others; remove what killed processes left of theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
        with _kept(left) as mine:
            if mine:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        folder.mkdir()
        with _kept(folder) as mine:
            # In between, another process may have taken it for one that was left.
            if mine is False or not folder.exists():
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _kept(folder: Path) -> Iterator[bool | None]:
    """Lock a folder while the body runs; False if another process has it or had it, None where there are no locks."""
    if sys.platform == "win32":
        yield None
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _exchange(new: Path, path: Path, old: Path) -> None:
    replaced = path.exists()
    if replaced:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if replaced:
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    # A rename is durable only once the folder that holds the name is on disk as well.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
