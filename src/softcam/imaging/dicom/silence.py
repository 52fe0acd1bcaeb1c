"""What the DICOM libraries warn, log and raise quotes header values, so none of it may pass."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from softcam.errors import ImageError
from softcam.imaging.image import DECODER_ERRORS
from softcam.libraries import load_library

_LIBRARIES = frozenset(
    {"pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle", "PIL", "highdicom", "pynetdicom", "dicomweb_client"}
)
# Module names as `warnings` matches them: from their beginning.
_QUOTING = rf"({'|'.join(sorted(_LIBRARIES))})(\.|$)"


class _OwnThreads(logging.Filter):
    """Drops what is logged in a thread that is inside `silenced`; other users of the libraries see their records."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.local()

    def filter(self, _record: logging.LogRecord) -> bool:
        return not getattr(self.inside, "depth", 0)


_FILTER = _OwnThreads()
_LOCK = threading.Lock()
_INSIDE: set[object] = set()


@contextmanager
def silenced() -> Iterator[None]:
    """Let no warning or log record of the DICOM libraries pass; threads may be inside at the same time."""
    token = object()
    depth = getattr(_FILTER.inside, "depth", 0)
    _FILTER.inside.depth = depth + 1
    with _LOCK:
        if not _INSIDE:
            _install()
        _INSIDE.add(token)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.discard(token)
            if not _INSIDE:
                _remove()
        _FILTER.inside.depth = depth


@contextmanager
def guarded(reason: str) -> Iterator[None]:
    """Turn whatever the DICOM libraries raise into an ImageError without a trace of it, and silence them.

    Args:
        reason: What to say instead.

    Raises:
        ImageError: As raised inside, or with the reason.
        MissingExtraError: If pydicom is not installed.
    """
    errors = load_library("pydicom.errors", extra="dicom")
    load_library("pydicom.pixels.decoders", extra="dicom")
    try:
        with silenced():
            yield
    except (*DECODER_ERRORS, errors.BytesLengthException, errors.InvalidDicomError):
        raise ImageError(reason) from None
    except BaseException as error:
        # A codec in Rust gives up with an exception that is no Exception and has no public name.
        if type(error).__name__ == "PanicException":
            raise ImageError(reason) from None
        raise


def _install() -> None:
    # `catch_warnings` puts back the filters that it found, which mixes up those of threads that leave in another order.
    warnings.filterwarnings("ignore", module=_QUOTING)
    for logger in _list_loggers():
        logger.addFilter(_FILTER)


def _remove() -> None:
    for entry in [entry for entry in warnings.filters if _is_own(entry)]:
        warnings.filters.remove(entry)  # type: ignore[attr-defined]
    for logger in _list_loggers():
        logger.removeFilter(_FILTER)


def _is_own(entry: tuple[Any, ...]) -> bool:
    return bool(getattr(entry[3], "pattern", entry[3]) == _QUOTING)


def _list_loggers() -> tuple[logging.Logger, ...]:
    return _select_loggers(len(logging.Logger.manager.loggerDict))


@lru_cache(maxsize=1)
def _select_loggers(_known: int) -> tuple[logging.Logger, ...]:
    # A filter holds for records of its own logger only, not for those of the loggers below it.
    return tuple(
        logger
        for name, logger in list(logging.Logger.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LIBRARIES
    )
