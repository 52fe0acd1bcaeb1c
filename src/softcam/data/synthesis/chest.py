"""A healthy chest's radiograph, drawn: lungs, heart, diaphragm and bones, and what is harmless but catches the eye.

Structures behind each other add up in density, as attenuation does; the tone curve comes after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from softcam.data.synthesis.canvas import Plane, Point, smooth_noise
from softcam.data.synthesis.ribcage import Frame, Patient, draw_bones, draw_frame, half_width

FLESH, AIR = 0.6, 0.43
"""Density of the body, and what of it is missing where there is lung."""


@dataclass(frozen=True, eq=False)
class Chest:
    """A chest without findings.

    Args:
        density: (S, S).
        lungs: (S, S) in [0, 1], how much of a pixel is lung that nothing else hides.
        tone: Steepness and middle of the curve that turns density into brightness.
    """

    density: Plane
    lungs: Plane
    tone: tuple[float, float]

    def render(self, opacity: Plane) -> Plane:
        """Return the picture without its noise.

        Args:
            opacity: Density that is added to the lungs.
        """
        steepness, middle = self.tone
        result: Plane = 1 / (1 + np.exp(-steepness * (self.density + opacity * self.lungs - middle)))
        return result


def draw_chest(generator: np.random.Generator, patient: Patient, size: int) -> Chest:
    """Return a patient's chest.

    Args:
        generator: Of everything that differs between radiographs.
        patient: Whose chest it is.
        size: Side of the image in pixels.
    """
    frame = draw_frame(generator, size)
    above, hidden = _draw_diaphragm(generator, frame), _draw_middle(generator, frame, patient)
    inside = half_width(frame, patient) - np.abs(frame.across)
    lungs = frame.step(inside - 0.012, 0.015) * above * (1 - hidden)
    # Rays that are scattered on their way blur what is dark and what is bright.
    air = 0.82 * lungs + 0.18 * ndimage.gaussian_filter(lungs, 0.035 * size)
    belly = (1 - above) * frame.step(inside, 0.1)
    density = _draw_body(frame, patient) - AIR * air + 0.13 * belly + 0.03 * hidden
    density += draw_bones(generator, frame, patient) * (1 - 0.6 * np.maximum(hidden, 1 - above))
    density += air * _draw_vessels(generator, frame) + _draw_airways(frame) + _draw_soft(generator, frame, patient)
    for weight, scale in ((0.02, 0.07), (0.011, 0.02), (0.008, 0.006)):
        density += weight * smooth_noise(generator, size, scale * size)
    density = ndimage.gaussian_filter(density + _draw_devices(generator, frame), 0.002 * size)
    return Chest(density, lungs, (generator.uniform(4.6, 6.2), generator.uniform(0.43, 0.53)))


def draw_grain(generator: np.random.Generator, picture: Plane) -> Plane:
    """Return noise (S, S) as it adds to a picture: stronger where fewer quanta arrive."""
    size = len(picture)
    noise = smooth_noise(generator, size, max(0.3, 0.0018 * size))
    result: Plane = generator.uniform(0.007, 0.019) * (0.6 + 0.8 * picture) * noise
    return result


def _draw_body(frame: Frame, patient: Patient) -> Plane:
    """Return the density of neck, shoulders and trunk, which is thinner at its sides."""
    away = np.abs(frame.across)
    shoulders = 0.01 + 0.34 * np.clip(away - 0.1, 0, None) ** 1.25
    waist = patient.waist + 0.1 * frame.step(0.36 - frame.down, 0.3)
    outline = frame.step(frame.down - shoulders, 0.04) * frame.step(waist - away, 0.03)
    thickness = np.sqrt(np.clip(1 - (away / 0.62) ** 2, 0.1, 1))
    result: Plane = patient.flesh * FLESH * outline * (0.5 + 0.5 * thickness)
    return result


def _draw_diaphragm(generator: np.random.Generator, frame: Frame) -> Plane:
    """Return 1 above the diaphragm, 0 below: two domes, the liver's higher, that fall steeply at the sides."""
    breath = generator.normal(0, 0.018)
    domes = []
    for side, top in ((-1, 0.765), (1, 0.785)):
        beside = side * frame.across - generator.uniform(0.15, 0.18)
        domes.append(top + breath + generator.normal(0, 0.006) + np.where(beside > 0, 2.1, 0.6) * beside**2)
    right, left = domes
    rows = right + frame.step(frame.across, 0.12) * (left - right)
    return frame.step(rows - frame.down, 0.008)


def _draw_middle(generator: np.random.Generator, frame: Frame, patient: Patient) -> Plane:
    """Return what hides lung between the two sides: great vessels, aortic arch, heart with its apex to the right."""
    across, scale = frame.across, patient.heart
    neck, base = frame.step(0.13 - frame.down, 0.12), frame.step(frame.down - 0.35, 0.3)
    vessels = frame.step(0.05 + 0.015 * neck + 0.015 * base - np.abs(across - 0.004), 0.015)
    arch = frame.ellipse((0.28 + generator.normal(0, 0.008), 0.042), (0.05, 0.038), 0.015)
    trunk = frame.ellipse((0.43, 0.048), (0.12, 0.048), 0.03)
    atrium = frame.ellipse((0.635, -0.04), (0.14 * scale, 0.07 * scale), 0.018)
    ventricle = frame.ellipse((0.65, 0.075), (0.135 * scale, 0.175 * scale), 0.018, tilt=generator.normal(0.6, 0.08))
    foot = frame.ellipse((0.76, 0.045), (0.12, 0.1 * scale), 0.03)
    hidden = np.ones((frame.size, frame.size))
    for part in (vessels, arch, trunk, atrium, ventricle, foot):
        hidden = hidden * (1 - part)
    result: Plane = 1 - hidden
    return result


def _draw_airways(frame: Frame) -> Plane:
    """Return the windpipe and the two main bronchi, which are dark."""
    windpipe = frame.step(0.016 - np.abs(frame.across), 0.01) * frame.step(0.315 - frame.down, 0.03)
    slanted = np.abs(frame.across) - 0.7 * (frame.down - 0.3)
    bronchi = frame.step(0.012 - np.abs(slanted), 0.012) * frame.step(0.035 - np.abs(frame.down - 0.335), 0.03)
    result: Plane = -0.1 * windpipe - 0.05 * bronchi
    return result


def _draw_vessels(generator: np.random.Generator, frame: Frame) -> Plane:
    """Return the lungs' vessels, which fan out from the two hila."""
    strokes: list[tuple[list[Point], float]] = []
    hila = np.zeros((frame.size, frame.size))
    for side, row in ((-1, 0.44), (1, 0.42)):
        hila += frame.ellipse((row, side * 0.08), (0.055, 0.03), 0.05)
        for heading in np.linspace(0.1, 2.7, 9):
            start = (row + generator.normal(0.05 * np.cos(heading), 0.02), side * generator.normal(0.075, 0.012))
            strokes += _grow(generator, start, heading + generator.normal(0, 0.15), 0.011, side=side)
    vessels = ndimage.gaussian_filter(frame.lines(strokes), 0.002 * frame.size)
    result: Plane = 0.085 * vessels + 0.09 * hila
    return result


def _grow(
    generator: np.random.Generator, start: Point, heading: float, width: float, *, side: int
) -> list[tuple[list[Point], float]]:
    """Return a vessel that narrows on its way outwards, and its branches."""
    point = start
    strokes: list[tuple[list[Point], float]] = []
    while width > 0.0025:
        heading += generator.normal(0, 0.22)
        before, point = point, (point[0] + 0.02 * np.cos(heading), point[1] + side * 0.02 * np.sin(heading))
        strokes.append(([before, point], width))
        if generator.random() < 0.33:
            turn = generator.choice((-1, 1)) * generator.uniform(0.3, 0.8)
            strokes += _grow(generator, point, heading + turn, 0.65 * width, side=side)
        width *= 0.9
    return strokes


def _draw_soft(generator: np.random.Generator, frame: Frame, patient: Patient) -> Plane:
    """Return breasts, nipples and the stomach's bubble: as often in every chest, whatever its label."""
    soft = np.zeros((frame.size, frame.size))
    nipples = generator.random() < 0.4
    for side in (-1, 1):
        centre = (0.65 + generator.normal(0, 0.015), side * (0.2 + generator.normal(0, 0.012)))
        soft += patient.breasts * frame.ellipse(centre, (0.15, 0.16), 0.09)
        if nipples and generator.random() < 0.75:
            radius = generator.uniform(0.008, 0.013)
            nipple = (centre[0] + generator.normal(0.03, 0.02), centre[1] + side * generator.uniform(0, 0.06))
            soft += generator.uniform(0.06, 0.12) * frame.ellipse(nipple, (radius, radius), 0.004)
    if generator.random() < 0.6:
        radii = (generator.uniform(0.02, 0.035), generator.uniform(0.04, 0.07))
        bubble = frame.ellipse((generator.uniform(0.84, 0.88), generator.uniform(0.12, 0.2)), radii, 0.02)
        soft -= generator.uniform(0.08, 0.2) * bubble
    return soft


def _draw_devices(generator: np.random.Generator, frame: Frame) -> Plane:
    """Return electrodes that stick to the skin, and their wires: as often in every chest, whatever its label."""
    discs, strokes = np.zeros((frame.size, frame.size)), []
    for _ in range(int(generator.choice((0, 0, 0, 1, 2, 3)))):
        point = (generator.uniform(0.2, 0.75), generator.choice((-1, 1)) * generator.uniform(0.08, 0.36))
        discs += 0.14 * frame.ellipse(point, (0.017, 0.017), 0.005) + 0.2 * frame.ellipse(point, (0.006, 0.006), 0.004)
        heading, path = generator.uniform(0, 2 * np.pi), [point]
        for _ in range(50):
            heading += generator.normal(0, 0.16)
            point = (point[0] + 0.02 * np.cos(heading), point[1] + 0.02 * np.sin(heading))
            path.append(point)
        strokes.append((path, 0.004))
    result: Plane = discs + (0.15 * frame.lines(strokes) if strokes else 0)
    return result
