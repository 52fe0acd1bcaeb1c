"""What DICOM objects say, and who says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from softcam._version import __version__

KINDS = ("map", "segmentation", "report", "capture")
"""Objects that can be written of a prediction: Parametric Map, Segmentation, Structured Report, Secondary Capture."""

MANUFACTURER = "softcam"
PRODUCT = "SoftCAM"
PROGRAM = f"softcam {__version__}"
_LONGEST_TEXT = 64  # characters of a LO value


@dataclass(frozen=True)
class ModelIdentity:
    """The model that a DICOM object names as its algorithm.

    Args:
        name: What people call it, e.g. its architecture; up to 64 characters are kept.
        fingerprint: SHA-256 of its tensors, as `Predictor.fingerprint`.

    Raises:
        ValueError: If the name is empty or the fingerprint is no SHA-256 in hexadecimal.
    """

    name: str
    fingerprint: str

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("Expected `name` to say what the model is, but got no text.")
        if not re.fullmatch(r"[0-9a-f]{64}", self.fingerprint):
            raise ValueError("Expected `fingerprint` to be 64 hexadecimal digits. Take `Predictor.fingerprint`.")

    @property
    def title(self) -> str:
        """Its name as a value that DICOM takes for one line of text."""
        return one_line(f"{PRODUCT} {self.name}")


@dataclass(frozen=True)
class ObjectSettings:
    """Which DICOM objects are written of a prediction, and what they hold.

    Args:
        kinds: Some of `KINDS`.
        threshold: Share of the image's highest evidence from which cells are segmented and become regions of the
            report, in (0, 1].
        max_regions: Regions that the report describes one by one, those that contribute most; the rest is one sum.
        max_classes: Classes whose evidence the map holds, those with the highest logits.
        color_limit: Logits per cell that get the full colour in the capture; default: chosen for each image.
        deidentify: Whether to apply the basic confidentiality profile of PS3.15 to what is written.

    Raises:
        ValueError: If a value is out of range or a kind is not known.
    """

    kinds: tuple[str, ...] = KINDS
    threshold: float = 0.5
    max_regions: int = 20
    max_classes: int = 16
    color_limit: float | None = None
    deidentify: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"Expected `kinds` to be different ones of {', '.join(KINDS)}, but got {self.kinds}.")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"Expected `threshold` to be in (0, 1], but got {self.threshold}.")
        for name in ("max_regions", "max_classes"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, but got {value}.")
        if self.color_limit is not None and not 0 < self.color_limit < float("inf"):
            raise ValueError(f"Expected `color_limit` to be positive and finite, but got {self.color_limit}.")


def one_line(text: str, longest: int = _LONGEST_TEXT) -> str:
    r"""Return text that fits a line of DICOM: no backslash, no control character, at most so many characters.

    >>> one_line("a\\b\n" + 70 * "c", longest=6)
    'a/b cc'
    """
    plain = "".join(char if char.isprintable() else " " for char in text.replace("\\", "/"))
    return " ".join(plain.split())[:longest].strip()
