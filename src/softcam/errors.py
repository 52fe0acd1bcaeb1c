"""Every exception and warning that a user of softcam can meet."""

from __future__ import annotations

from collections.abc import Sequence


class SoftCAMError(Exception):
    """Base of all errors that softcam raises on purpose; catch it to catch them all."""


class SoftCAMWarning(UserWarning):
    """Something a user should read but that does not stop the work."""


class UnsupportedModelError(SoftCAMError):
    """A model whose head cannot become a class evidence layer in the way that was asked for."""


class IdentityError(SoftCAMError):
    """Evidence maps that do not average to the logits, or that hold NaN or infinity."""


class ImageError(SoftCAMError):
    """A file or array that is not a usable image; the message is the reason, fit for a table of failures."""


class ImageTooLargeError(ImageError):
    """An image that would cost more than the limits allow: bytes, pixels or frames.

    Args:
        reason: What is too large.
        pixels: How many pixels it has at least, where these are what is too much.
    """

    def __init__(self, reason: str, *, pixels: int | None = None) -> None:
        super().__init__(reason)
        self.pixels = pixels


class NotAnImageError(ImageError):
    """Bytes that are of none of the image formats that are read."""


class DicomError(SoftCAMError):
    """A DICOM object that cannot be read, written, de-identified or sent; the message names nothing of its header."""


class BundleError(SoftCAMError):
    """A model folder that is incomplete, damaged, unsafe or made for something else."""


class ExportError(SoftCAMError):
    """A model that cannot be exported, or an exported file that is damaged or differs from its model."""


class RecipeError(SoftCAMError):
    """A training recipe with an unknown key or a value out of range."""


class RecordError(SoftCAMError):
    """Records or keys that cannot be read, written or continued."""


class ServiceError(SoftCAMError):
    """A service that cannot start as it was asked to."""


class RunError(SoftCAMError):
    """A training, evaluation or explanation that cannot start, continue or finish."""


class DivergenceError(RunError):
    """A training whose loss is no longer finite."""


class MissingExtraError(SoftCAMError, ImportError):
    """An optional dependency that is not installed.

    Args:
        package: The importable package that is missing.
        extra: The extra of softcam that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"Expected the package {package!r} to be installed. Run: pip install 'softcam[{extra}]'")


class ManifestError(SoftCAMError):
    """A table of images that cannot be used, with every problem that was found.

    Args:
        problems: One sentence per problem, each naming its row where there is one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(self.problems[:10])
        more = f"; and {len(self.problems) - 10} more" if len(self.problems) > 10 else ""
        super().__init__(f"{len(self.problems)} problem(s) in the manifest: {shown}{more}")
