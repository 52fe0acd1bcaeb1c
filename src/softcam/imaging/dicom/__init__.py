"""DICOM files as a viewer shows them, read without anything about the patient."""

from __future__ import annotations

from softcam.imaging.dicom.directory import is_directory, list_references
from softcam.imaging.dicom.file import SPACINGS, DicomFile, count_dicom_frames, read_dicom
from softcam.imaging.dicom.header import is_dicom

__all__ = ["SPACINGS", "DicomFile", "count_dicom_frames", "is_dicom", "is_directory", "list_references", "read_dicom"]
