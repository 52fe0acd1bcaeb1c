"""The fingerprint belongs to the tensors alone; whatever bytes a bundle holds, they are read or refused."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from softcam.bundle import BundleConfig, fingerprint, read_config
from softcam.bundle.weights import read_weights
from softcam.errors import BundleError

TENSORS = st.builds(
    lambda shape, seed, dtype: torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(0, 5),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]),
)
STATES = st.dictionaries(st.text("abc.", min_size=1, max_size=4), TENSORS, min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*BundleConfig.__dataclass_fields__, "other"]


@given(STATES)
def test_the_fingerprint_survives_storage(state: dict[str, torch.Tensor]) -> None:
    stored = safetensors.torch.load(safetensors.torch.save(state))
    assert fingerprint(stored) == fingerprint(dict(reversed(state.items())))


@given(STATES, st.data())
def test_the_fingerprint_sees_every_tensor(state: dict[str, torch.Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(state)))
    changed = {**state, name: torch.cat([state[name].reshape(-1), state[name].new_zeros(1)])}
    assert fingerprint(changed) != fingerprint(state)


@given(STATES, st.data())
def test_damaged_weights_are_read_or_refused(state: dict[str, torch.Tensor], data: st.DataObject) -> None:
    content = safetensors.torch.save(state)
    cut = data.draw(st.integers(0, len(content) - 1))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").write_bytes(content[:cut])
        with contextlib.suppress(BundleError):
            assert sum(value.numel() for value in read_weights(Path(name)).values()) == 0


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_configuration_is_read_or_refused(values: dict[str, object]) -> None:
    base = {"format_version": 1, "kind": "softcam", "classes": ["a"], "task": "multiclass", "fingerprint": "0" * 64}
    try:
        config = BundleConfig.from_dict({**base, **values})
    except BundleError:
        return
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text(config.to_json())
        assert read_config(name) == config
