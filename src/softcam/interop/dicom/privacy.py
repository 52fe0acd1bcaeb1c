"""The basic confidentiality profile of DICOM PS3.15, annex E, on every level of a data set.

The table of what happens to which element, and how each kind of value is replaced, is dicom-anonymizer's. That library
applies it to the top level alone; here sequences are walked, identifiers keep pointing at each other within a run, and
what no rule knows how to replace is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import metadata
from typing import Any

from dicomanonymizer import simpledicomanonymizer as profile
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag

from softcam.errors import DicomError
from softcam.interop.dicom.runs import RunKey
from softcam.interop.dicom.settings import MANUFACTURER, PRODUCT, PROGRAM

Action = Callable[[Dataset, Any], None]

BASIC_PROFILE = Code("113100", "DCM", "Basic Application Confidentiality Profile")
CLEAN_CONTENT = Code("113104", "DCM", "Clean Structured Content Option")

_STANDARD_UIDS = "1.2.840.10008."
_TREE = "ContentSequence"
_OPAQUE = ("EncapsulatedDocument", "WaveformSequence")
_DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}
"""Dates and times where the standard asks for some; the library's own lie in the year 1, which validators refuse."""
_KEPT_META = ("FileMetaInformationVersion", "MediaStorageSOPClassUID", "TransferSyntaxUID")


class Deidentifier:
    """Apply the basic profile in place; equal identifiers become equal ones for as long as the key is the same.

    Pixels stay as they are: text that is burned in is not removed, and what the header says of it is kept.

    Args:
        key: Of the run.
    """

    def __init__(self, key: RunKey) -> None:
        self._key = key

    def __call__(self, dataset: Dataset) -> None:
        """De-identify a data set with its file meta information.

        Args:
            dataset: An image, or an object that softcam wrote; changed in place.

        Raises:
            DicomError: If it is something else, whose text or content cannot be cleaned element by element.
        """
        own = _is_own(dataset)
        check_cleanable(dataset)
        self._clean(dataset, keep_tree=own)
        _declare(dataset, tree_is_clean=own and _TREE in dataset)
        _reset_file(dataset)

    def _clean(self, dataset: Dataset, *, keep_tree: bool) -> None:
        rules, ranges = _load_rules()
        for element in list(dataset):
            action = rules.get(element.tag) or _find_range(element.tag, ranges)
            if element.tag.is_private:
                del dataset[element.tag]
            elif action is not None and not (keep_tree and element.keyword == _TREE):
                self._apply(action, dataset, element)
            if element.VR == "SQ" and element.tag in dataset:
                for item in dataset[element.tag].value:
                    self._clean(item, keep_tree=keep_tree)

    def _apply(self, action: Action, dataset: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and action is not profile.delete:
            element.value = self._replace(element.value)
        elif element.VR == "SQ" and action is profile.delete_or_empty_or_replace_UID:
            return  # references to other objects: what they hold is walked, so that they still point there
        elif element.VR in _DUMMIES and action is not profile.delete:
            element.value = "" if action in (profile.empty, profile.delete_or_empty) else _DUMMIES[element.VR]
        elif action is profile.delete or not _replaces(action, dataset, element):
            del dataset[element.tag]

    def _replace(self, value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, Iterable):
            text = str(value or "")
            return text if not text or text.startswith(_STANDARD_UIDS) else self._key.derive_uid("uid", text)
        return [self._replace(each) for each in value]


def check_cleanable(dataset: Dataset) -> None:
    """Raise an error unless an object is an image, or softcam's own, whose content is known.

    Raises:
        DicomError: If it is not.
    """
    if _is_own(dataset):
        return
    if "Rows" not in dataset or _TREE in dataset or any(name in dataset for name in _OPAQUE):
        raise DicomError("Expected an image, but got an object whose content may name the patient. Leave it out.")


def profile_texts() -> list[str]:
    """Return what was done to a de-identified object, by which versions of which programs."""
    return ["PS3.15 basic profile", f"dicom-anonymizer {metadata.version('dicom-anonymizer')}", PROGRAM]


def _is_own(dataset: Dataset) -> bool:
    return (dataset.get("Manufacturer"), dataset.get("ManufacturerModelName")) == (MANUFACTURER, PRODUCT)


@cache
def _load_rules() -> tuple[dict[BaseTag, Action], list[tuple[tuple[int, int, int, int], Action]]]:
    """Return the profile's actions by tag, and those of repeating groups with their masks."""
    table = profile.initialize_actions_2024b()
    rules = {BaseTag(tag[0] << 16 | tag[1]): action for tag, action in table.items() if len(tag) == 2}
    return rules, [(tag, action) for tag, action in table.items() if len(tag) == 4]


def _find_range(tag: BaseTag, ranges: list[tuple[tuple[int, int, int, int], Action]]) -> Action | None:
    for (group, element, group_mask, element_mask), action in ranges:
        if tag.group & group_mask == group & group_mask and tag.element & element_mask == element & element_mask:
            return action
    return None


def _replaces(action: Action, dataset: Dataset, element: DataElement) -> bool:
    """Return whether the library could replace the value; what it does not know it leaves."""
    try:
        action(dataset, element.tag)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return False
    return True


def _declare(dataset: Dataset, *, tree_is_clean: bool) -> None:
    codes = [BASIC_PROFILE, CLEAN_CONTENT] if tree_is_clean else [BASIC_PROFILE]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = profile_texts()
    dataset.DeidentificationMethodCodeSequence = [_item(code) for code in codes]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _reset_file(dataset: Dataset) -> None:
    """Leave nothing around the data set either: a preamble may hold a second file, file meta names places."""
    before = dataset.get("file_meta") if not hasattr(dataset, "file_meta") else dataset.file_meta
    meta = FileMetaDataset()
    for name in _KEPT_META:
        if before is not None and name in before:
            setattr(meta, name, getattr(before, name))
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
