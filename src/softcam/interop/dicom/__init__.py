"""Results where clinicians look: DICOM objects of a prediction, their way to an archive, and privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

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
_LIBRARIES = frozenset({"dicomanonymizer", "dicomweb_client", "highdicom", "pydicom", "pynetdicom"})

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES, extra="dicom", libraries=_LIBRARIES)
