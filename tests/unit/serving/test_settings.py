"""Nobody can open a service to others without a token, or with limits that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcam.errors import ServiceError
from softcam.serving.settings import LEAST_TOKEN, Access, Limits, ServiceSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_loopback_needs_no_token(host: str) -> None:
    assert Access(host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - what is refused
def test_other_addresses_need_one(host: str) -> None:
    with pytest.raises(ServiceError, match="SOFTCAM_TOKEN"):
        Access(host)
    assert not Access(host, "x" * LEAST_TOKEN).is_local


@pytest.mark.parametrize("token", ["x" * (LEAST_TOKEN - 1), "ü" * LEAST_TOKEN, "a\n" * LEAST_TOKEN])
def test_a_token_is_long_and_plain(token: str) -> None:
    with pytest.raises(ServiceError, match="printable ASCII"):
        Access(token=token)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Access(token="secret" * 4))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="`rate` to be positive"):
        Access(rate=rate)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "body_seconds", "decode_seconds", "decoder_bytes"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` to be positive"):
        Limits(**{name: 0})


def test_small_images_are_decoded_beside_others() -> None:
    limits = Limits(max_pixels=100, light_pixels=10, max_bytes=7, max_frames=3)
    light, heavy = limits.of_decoding(light=True), limits.of_decoding(light=False)
    assert (light.max_pixels, heavy.max_pixels) == (10, 100)
    assert {light.max_bytes, heavy.max_bytes} == {7}
    assert light.max_frames == 3
    assert Limits(max_pixels=5, light_pixels=10).of_decoding(light=True).max_pixels == 5


def test_what_is_stored_is_signed(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="softcam keys"):
        ServiceSettings(store=tmp_path)


def test_a_service_has_a_decoder() -> None:
    with pytest.raises(ValueError, match="`decoders` to be at least 1"):
        ServiceSettings(decoders=0)
