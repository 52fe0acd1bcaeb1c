from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from softcam.imaging.colormap import encode_png, overlay, scale_limit, signed_colors

# Linear-light sRGB as a person without the named cones sees it: Machado, Oliveira and Fernandes, 2009, severity 1.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colors: np.ndarray) -> np.ndarray:
    share = colors / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    """Linear sRGB to OKLab, by the published forward matrices (the product inverts them)."""
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(np.clip(light, 0, 1) @ np.transpose(to_cones)) @ np.transpose(to_lab)


SCALE = np.linspace(-1, 1, 41)
COLORS = signed_colors(SCALE[None], 1.0)[0]


class TestSignedColors:
    def test_ends_and_middle(self) -> None:
        assert COLORS[20].tolist() == [245, 245, 245]
        red, _, blue = COLORS[0].astype(int)
        assert blue - red > 150
        red, _, blue = COLORS[-1].astype(int)
        assert red - blue > 150

    def test_beyond_the_limit_the_ends_stay(self) -> None:
        np.testing.assert_array_equal(signed_colors([[-9.0, 9.0]], 2.0), signed_colors([[-2.0, 2.0]], 2.0))

    def test_the_limit_sets_the_scale(self) -> None:
        np.testing.assert_array_equal(signed_colors([[3.0]], 6.0), signed_colors([[0.5]], 1.0))
        assert signed_colors([[3.0]], 6.0).tolist() != signed_colors([[3.0]], 4.0).tolist()

    def test_both_arms_mirror_each_other_in_lightness_and_chroma(self) -> None:
        lightness, a, b = oklab(linear(COLORS)).T
        np.testing.assert_allclose(lightness, lightness[::-1], atol=4e-3)
        np.testing.assert_allclose(np.hypot(a, b), np.hypot(a, b)[::-1], atol=6e-3)

    def test_strength_is_perceptually_linear(self) -> None:
        lightness = oklab(linear(COLORS))[:, 0]
        np.testing.assert_allclose(lightness, 0.97 - 0.37 * np.abs(SCALE), atol=4e-3)

    @pytest.mark.parametrize("kind", sorted(BLINDNESS))
    def test_the_sign_is_seen_without_one_kind_of_cone(self, kind: str) -> None:
        seen = oklab(linear(COLORS) @ np.transpose(BLINDNESS[kind]))
        difference = np.linalg.norm(seen - seen[::-1], axis=1)
        # 0.02 is about one just noticeable difference; the signs differ clearly from a quarter of the scale on.
        assert difference[np.abs(SCALE) >= 0.25].min() > 0.05
        assert difference[0] > 0.2

    @pytest.mark.parametrize("values", [np.zeros(3), np.zeros((1, 2, 2)), np.array([[np.nan]]), np.array([[np.inf]])])
    def test_only_finite_matrices(self, values: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"Expected `values` to be a finite \(H, W\) matrix"):
            signed_colors(values, 1.0)

    @pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
    def test_only_positive_limits(self, limit: float) -> None:
        with pytest.raises(ValueError, match=f"Expected `limit` to be finite and positive, but got {limit}"):
            signed_colors([[1.0]], limit)


class TestOverlay:
    IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)

    def test_no_evidence_leaves_the_image_untouched(self) -> None:
        np.testing.assert_array_equal(overlay(self.IMAGE, np.zeros((2, 3)), 1.0, opacity=1.0), self.IMAGE)
        np.testing.assert_array_equal(overlay(self.IMAGE, np.ones((2, 3)), 1.0, opacity=0.0), self.IMAGE)

    def test_full_evidence_at_full_opacity_is_its_colour(self) -> None:
        blended = overlay(self.IMAGE, np.full((2, 3), -4.0), 4.0, opacity=1.0)
        np.testing.assert_array_equal(blended, np.broadcast_to(COLORS[0], (6, 8, 3)))

    def test_the_blend_by_hand(self) -> None:
        # Half the limit: half of the opacity 0.5, so a quarter of the colour.
        blended = overlay(self.IMAGE, np.full((1, 1), 1.0), 2.0)
        expected = np.rint(0.75 * self.IMAGE + 0.25 * COLORS[-1])
        np.testing.assert_array_equal(blended, expected)

    def test_the_map_is_enlarged_with_cell_centres_in_place(self) -> None:
        values = np.zeros((3, 4))
        values[2, 1] = 1.0
        changed = np.abs(overlay(np.zeros((30, 40), np.uint8), values, 1.0, opacity=1.0).astype(int)).sum(axis=2)
        y, x = ((np.indices(changed.shape) + 0.5) * changed).sum(axis=(1, 2)) / changed.sum()
        assert x == pytest.approx(15, abs=0.5)
        assert 24 < y < 27

    def test_grey_images_become_colour(self) -> None:
        grey = self.IMAGE[..., 0]
        np.testing.assert_array_equal(overlay(grey, np.zeros((2, 2)), 1.0)[..., 2], grey)

    @pytest.mark.parametrize("opacity", [-0.01, 1.01])
    def test_opacity_is_a_share(self, opacity: float) -> None:
        with pytest.raises(ValueError, match=rf"Expected `opacity` to be in \[0, 1\], but got {opacity}"):
            overlay(self.IMAGE, np.zeros((2, 2)), 1.0, opacity=opacity)

    def test_only_eight_bit_images(self) -> None:
        with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, 3\) uint8, but got \(6, 8, 3\) float64"):
            overlay(self.IMAGE.astype(float), np.zeros((2, 2)), 1.0)  # type: ignore[arg-type]


class TestScaleLimit:
    def test_by_hand(self) -> None:
        maps = np.array([[[-5.0, 1.0], [2.0, 3.0]], [[4.0, 0.0], [0.0, 0.0]]])
        assert scale_limit(maps, quantile=1.0) == 5
        assert scale_limit(maps, quantile=0.5) == 1.5

    def test_an_outlier_does_not_set_the_scale(self) -> None:
        maps = np.ones(10_000)
        maps[0] = 1e6
        assert scale_limit(maps) == 1

    def test_sparse_maps_fall_back_to_their_peak_and_empty_ones_to_one(self) -> None:
        maps = np.zeros(10_000)
        assert scale_limit(maps) == 1
        maps[7] = -0.25
        assert scale_limit(maps) == 0.25

    @pytest.mark.parametrize("maps", [np.zeros((0, 3)), np.array([1.0, np.nan]), np.array([np.inf])])
    def test_only_finite_values(self, maps: np.ndarray) -> None:
        with pytest.raises(ValueError, match="Expected `maps` to hold finite values"):
            scale_limit(maps)

    @pytest.mark.parametrize("quantile", [0.0, 1.01])
    def test_quantile_is_a_share(self, quantile: float) -> None:
        with pytest.raises(ValueError, match=r"Expected `quantile` to be in \(0, 1\]"):
            scale_limit([1.0], quantile=quantile)


class TestEncodePng:
    @pytest.mark.parametrize(("shape", "kind"), [((5, 4), np.uint8), ((5, 4, 3), np.uint8), ((5, 4), np.uint16)])
    def test_what_is_written_is_read_back(self, shape: tuple[int, ...], kind: type) -> None:
        pixels = np.random.default_rng(1).integers(0, np.iinfo(kind).max, shape, dtype=kind)
        content = encode_png(pixels)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content), formats=["PNG"])), pixels)
        assert content == encode_png(pixels.copy())

    @pytest.mark.parametrize(("shape", "kind"), [((5, 4, 3), np.uint16), ((5, 4, 4), np.uint8), ((5, 4), np.float32)])
    def test_other_pixels_are_refused(self, shape: tuple[int, ...], kind: type) -> None:
        with pytest.raises(ValueError, match=r"Expected the image to be \(H, W\) or \(H, W, 3\) uint8"):
            encode_png(np.zeros(shape, kind))
