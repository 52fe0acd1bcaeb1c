"""What a kind of drawn images is: the settings that all kinds share, what one image is asked to be, and its painter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from softcam.data.synthesis.canvas import Plane

Difficulty = Literal["easy", "medium", "hard"]

CONTRAST: dict[Difficulty, float] = {"easy": 1.0, "medium": 0.75, "hard": 0.5}
"""How strong a finding is drawn."""

VISIBLE = 0.012
"""Smallest change of a pixel that belongs to a finding, as a share of full brightness: three of 255 levels."""


@dataclass(frozen=True)
class SynthesisSettings:
    """What decides a set of images of one kind.

    Args:
        images: How many, two per patient, >= 10.
        size: Side in pixels, >= 64.
        seed: Of everything.
        difficulty: Contrast of the findings.
        shortcut: Whether a small mark in a corner gives the label away in training and validation, not in testing.
    """

    images: int = 2000
    size: int = 224
    seed: int = 0
    difficulty: Difficulty = "medium"
    shortcut: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.images < 10 or self.size < 64 or self.seed < 0 or self.difficulty not in get_args(Difficulty):
            raise ValueError(
                "Expected `images` >= 10, `size` >= 64, `seed` >= 0 and `difficulty` to be easy, medium or hard, but "
                f"got {asdict(self)}."
            )


@dataclass(frozen=True, eq=False)
class Order:
    """What one image is asked to be.

    Args:
        size: Side in pixels.
        grade: 0 without the finding, up to 4.
        contrast: Of the finding, in (0, 1].
        first: Whether it is the first of its patient's two images.
        patient: Draws what both images of the patient share.
        moment: Draws what differs between them.
    """

    size: int
    grade: int
    contrast: float
    first: bool
    patient: np.random.Generator
    moment: np.random.Generator


@dataclass(frozen=True, eq=False)
class Painting:
    """An image with and without its finding.

    Args:
        picture: (S, S) grey or (S, S, 3) colours in [0, 1].
        healthy: The same without the finding, equal to the picture outside of the mask.
        mask: (S, S) bool, where the finding is.
    """

    picture: NDArray[np.float64]
    healthy: NDArray[np.float64]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A kind of images.

    Args:
        name: In commands and records.
        title: What the images show, in a few words.
        classes: Name of the class without the finding and of that with it.
        pair: Column that tells a patient's two images apart, and what it says of them.
        paint: Draws one image.
        mark: Draws, in place, the sign in a corner that a shortcut consists of.
    """

    name: str
    title: str
    classes: tuple[str, str]
    pair: tuple[str, tuple[str, str]]
    paint: Callable[[Order], Painting]
    mark: Callable[[NDArray[np.float64]], None]


def keep_visible(picture: Plane, healthy: Plane) -> NDArray[np.bool_]:
    """Undo, in place, every change of a picture that is smaller than `VISIBLE`, and return where the others are."""
    changed: NDArray[np.bool_] = np.abs(picture - healthy) >= VISIBLE
    picture[~changed] = healthy[~changed]
    return changed
