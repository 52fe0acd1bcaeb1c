"""Images that are drawn rather than taken, so that the place of every finding is known to the pixel."""

from softcam.data.synthesis.lesions import LesionSettings, synthesize_lesions

__all__ = ["LesionSettings", "synthesize_lesions"]
