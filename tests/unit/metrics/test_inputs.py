from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from softcam.metrics.inputs import (
    check_binary,
    check_groups,
    check_maps,
    check_masks,
    check_positive,
    check_vector,
    to_numpy,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_tensors_become_float64(dtype: torch.dtype) -> None:
    array = to_numpy(torch.tensor([0.5, 2.0], dtype=dtype, requires_grad=True))
    assert array.dtype == np.float64
    assert array.tolist() == [0.5, 2.0]


def test_integer_tensors_keep_their_type() -> None:
    assert to_numpy(torch.tensor([1, 2])).dtype == np.int64


@pytest.mark.parametrize("values", [[1, 2], (1.0, 2.0), np.array([1, 2], np.uint8), torch.tensor([1, 2])])
def test_vector_accepts_any_sequence(values: object) -> None:
    array = check_vector(values, "x")  # type: ignore[arg-type]
    assert array.dtype == np.float64
    assert array.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("values", [[], [[1.0]], 1.0])
def test_vector_refuses_other_shapes(values: object) -> None:
    with pytest.raises(ValueError, match=r"Expected `x` to be of shape \(N,\) with N >= 1"):
        check_vector(values, "x")  # type: ignore[arg-type]


def test_vector_refuses_another_size() -> None:
    with pytest.raises(ValueError, match=r"Expected `x` to be of shape \(3,\), but got \(2,\)"):
        check_vector([1, 2], "x", size=3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_vector_refuses_not_finite_unless_told(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `x` to be finite, but got 1 NaN or infinite"):
        check_vector([1.0, bad], "x")
    assert check_vector([1.0, bad], "x", finite=False).size == 2


def test_binary_targets_become_booleans() -> None:
    assert check_binary(torch.tensor([0, 1]), "y", size=2).tolist() == [False, True]
    assert check_binary(np.array([True, False]), "y", size=2).tolist() == [True, False]


@pytest.mark.parametrize("bad", [2, -1, 0.5])
def test_binary_refuses_other_values(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `y` to be 0 or 1"):
        check_binary([0, bad], "y", size=2)


@pytest.mark.parametrize(
    "groups", [["b", "a", "b"], np.array(["b", "a", "b"]), torch.tensor([7, 3, 7]), pd.Series(["b", 1, "b"])]
)
def test_groups_are_numbered_in_order_of_appearance(groups: object) -> None:
    assert check_groups(groups, 3).tolist() == [0, 1, 0]  # type: ignore[arg-type]


def test_without_groups_every_image_is_its_own() -> None:
    assert check_groups(None, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_groups_refuse_missing_names(missing: object) -> None:
    with pytest.raises(ValueError, match="missing names"):
        check_groups(np.array(["a", missing], dtype=object), 2)


def test_groups_refuse_another_length() -> None:
    with pytest.raises(ValueError, match="Expected `groups` to have 3 entries, but got 2"):
        check_groups(["a", "b"], 3)


def test_maps_are_detached_float64() -> None:
    maps = torch.ones(1, 2, 3, requires_grad=True)
    checked = check_maps(maps)
    assert checked.dtype == torch.float64
    assert not checked.requires_grad


def test_maps_refuse_integers() -> None:
    with pytest.raises(TypeError, match=r"Expected `maps` to be floating point, but got torch.int64"):
        check_maps(torch.ones(1, 2, 3, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 2, 3), (0, 2, 3), (1, 0, 3)])
def test_maps_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `maps` to be of shape \(N, h, w\)"):
        check_maps(torch.ones(shape))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_maps_refuse_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        check_maps(torch.tensor([[[1.0, bad]]]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_become_booleans(dtype: torch.dtype) -> None:
    masks = torch.tensor([[[1, 0]]]).to(dtype)
    assert check_masks(masks, torch.zeros(1, 1, 2)).tolist() == [[[True, False]]]


def test_masks_refuse_another_shape() -> None:
    with pytest.raises(ValueError, match=r"of the shape of `maps`, \(1, 1, 2\), but got \(1, 2, 1\)"):
        check_masks(torch.zeros(1, 2, 1), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("bad", [2.0, 0.5, float("nan")])
def test_masks_refuse_other_values(bad: float) -> None:
    with pytest.raises(ValueError, match="Expected `masks` to be 0 or 1"):
        check_masks(torch.tensor([[[1.0, bad]]]), torch.zeros(1, 1, 2))


def test_positive_accepts_one_and_refuses_zero() -> None:
    assert check_positive(1, "k") == 1
    with pytest.raises(ValueError, match="Expected `k` to be at least 1, but got 0"):
        check_positive(0, "k")
