from __future__ import annotations

import pytest
import torch

from softcam.evaluation.localization import measure_localization


def test_a_map_on_the_finding_and_one_beside_it() -> None:
    truth = torch.zeros(2, 112, 112, dtype=torch.bool)
    truth[:, 8:16, 8:16] = True
    maps = torch.zeros(2, 14, 14)
    maps[0, 1, 1] = 1.0
    maps[1, 12, 12] = 1.0
    found = measure_localization(maps, truth)
    assert {name: tuple(values.shape) for name, values in found.items()} == dict.fromkeys(found, (2,))
    assert found["pointing_game"].tolist() == [1.0, 0.0]
    assert found["activation_precision"][0] > 0.3
    assert found["activation_precision"][1] == 0
    assert found["pixel_auroc"][0] > 0.99
    assert found["pixel_auroc"][1] < 0.5
    # The cell covers one patch fully and, by interpolation, its neighbours.
    assert found["topk_precision"].tolist() == [pytest.approx(1 / 3), 0.0]


def test_the_tolerance_grows_with_the_image() -> None:
    def hit(side: int, distance: int) -> float:
        truth = torch.zeros(1, side, side, dtype=torch.bool)
        truth[0, 0, 0] = True
        maps = torch.zeros(1, side, side)
        maps[0, 0, distance] = 1.0
        return float(measure_localization(maps, truth)["pointing_game"])

    assert [hit(224, 16), hit(224, 17), hit(112, 8), hit(112, 9)] == [1.0, 0.0, 1.0, 0.0]
