from __future__ import annotations

import pytest

from softcam.training.progress import track


@pytest.mark.parametrize("visible", [True, False])
def test_progress_goes_to_stderr_if_at_all(capsys: pytest.CaptureFixture[str], visible: bool) -> None:
    with track("Features", visible=visible) as report:
        report(2, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Features" in captured.err) is visible
