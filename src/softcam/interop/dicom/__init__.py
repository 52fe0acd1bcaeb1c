"""Results where clinicians look: DICOM objects of a prediction, their way to an archive, and privacy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from softcam.errors import MissingExtraError

if TYPE_CHECKING:
    from softcam.interop.dicom.archive import Delivery, send
    from softcam.interop.dicom.deidentify import Deidentified, deidentify_files
    from softcam.interop.dicom.destination import Destination
    from softcam.interop.dicom.objects import write_objects
    from softcam.interop.dicom.privacy import Deidentifier
    from softcam.interop.dicom.runs import RunKey, open_run_key
    from softcam.interop.dicom.settings import KINDS, ModelIdentity, ObjectSettings
    from softcam.interop.dicom.source import SourceFrame, read_source
    from softcam.interop.dicom.writer import ObjectWriter

_HOMES = {
    "KINDS": "settings",
    "Deidentified": "deidentify",
    "Deidentifier": "privacy",
    "Delivery": "archive",
    "Destination": "destination",
    "ModelIdentity": "settings",
    "ObjectSettings": "settings",
    "ObjectWriter": "writer",
    "RunKey": "runs",
    "SourceFrame": "source",
    "deidentify_files": "deidentify",
    "open_run_key": "runs",
    "read_source": "source",
    "send": "archive",
    "write_objects": "objects",
}
_LIBRARIES = ("dicomanonymizer", "dicomweb_client", "highdicom", "pydicom", "pynetdicom")

__all__ = [
    "KINDS",
    "Deidentified",
    "Deidentifier",
    "Delivery",
    "Destination",
    "ModelIdentity",
    "ObjectSettings",
    "ObjectWriter",
    "RunKey",
    "SourceFrame",
    "deidentify_files",
    "open_run_key",
    "read_source",
    "send",
    "write_objects",
]


def __getattr__(name: str) -> Any:
    """Import a public name, and the library that it needs, when it is first used.

    Raises:
        MissingExtraError: If that library is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _LIBRARIES:
            raise
        raise MissingExtraError(package, "dicom") from error
    globals()[name] = value
    return value
