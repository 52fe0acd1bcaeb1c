"""Libraries that work in silence: their warnings and logs quote the header, which may name the patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("dicomweb_client", "highdicom", "pydicom", "pynetdicom")
# What is silenced is of the whole process, so two threads must not restore each other's state.
_LOCK = threading.RLock()


@contextmanager
def silence() -> Iterator[None]:
    """Let no warning and no log record of a DICOM library out; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        before = [logger.disabled for logger in loggers]
        children = _list_children()
        try:
            for logger in (*loggers, *(child for child, _ in children)):
                logger.disabled = True
            yield
        finally:
            for logger, disabled in (*zip(loggers, before, strict=True), *children):
                logger.disabled = disabled


def _list_children() -> list[tuple[logging.Logger, bool]]:
    # A disabled parent does not silence its children, which is what these libraries log with.
    known = logging.Logger.manager.loggerDict
    prefixes = tuple(f"{name}." for name in _LOGGERS)
    found = (known[name] for name in list(known) if name.startswith(prefixes))
    return [(logger, logger.disabled) for logger in found if isinstance(logger, logging.Logger)]
