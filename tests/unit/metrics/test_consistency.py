from __future__ import annotations

import pytest
import torch

from softcam.metrics.consistency import negative_share, positive_share

MAPS = torch.tensor([[[1.0, -1.0], [0.0, 2.0]], [[-3.0, -1.0], [-1e-30, 0.0]]])


def test_shares_by_hand_with_zero_as_neither() -> None:
    assert positive_share(MAPS).tolist() == [0.5, 0.0]
    assert negative_share(MAPS).tolist() == [0.25, 0.75]
    assert positive_share(MAPS).dtype == torch.float64


def test_shares_swap_with_the_sign() -> None:
    torch.testing.assert_close(positive_share(-MAPS), negative_share(MAPS))


@pytest.mark.parametrize("metric", [positive_share, negative_share])
def test_shares_refuse_not_finite(metric: object) -> None:
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        metric(torch.full((1, 2, 2), float("nan")))  # type: ignore[operator]
