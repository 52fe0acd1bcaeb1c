from __future__ import annotations

import json
import signal
from functools import partial

import pytest

from softcam.errors import RunError
from softcam.training import read_recipe
from softcam.training.launch import Failure, _explain, launch


@pytest.mark.slow
def test_a_foreseen_error_is_told_as_it_is() -> None:
    with pytest.raises(RunError, match=r"^Expected a recipe file or one of .* but got 'nowhere'\.$"):
        launch(partial(read_recipe, "nowhere"), count=1)


@pytest.mark.slow
def test_an_error_that_was_not_foreseen_is_told_with_its_place() -> None:
    with pytest.raises(RunError, match=r"process 0 of 1 to go through, but it failed with JSONDecodeError") as caught:
        launch(partial(json.loads, "{"), count=1)
    assert "json/decoder.py" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_signal_is_told() -> None:
    with pytest.raises(RunError, match=r"process 0 was ended by SIGKILL\. If memory ran out, lower .* continues at"):
        launch(partial(signal.raise_signal, signal.SIGKILL), count=1)


def test_a_signal_comes_before_what_others_say_of_it() -> None:
    told = _explain({0: 1, 1: -11}, Failure("lost the others"))
    assert str(told).startswith("Expected all processes to go through, but process 1 was ended by SIGSEGV. The same")
    assert str(_explain({0: 1}, Failure("disk full"))) == "disk full"
    assert isinstance(_explain({0: 130}, None), KeyboardInterrupt)
    assert "process 2 ended with code 3. The same" in str(_explain({2: 3}, None))
