from __future__ import annotations

import pytest

from softcam.cli import main


def test_the_survey_is_a_table_with_a_line_that_sums_up(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter", "test_vit*"]) == 0
    said = capfd.readouterr()
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.strip().startswith("timm:")}
    assert "after fine-tuning" not in rows["timm:test_vit2"]
    assert "drift" in rows["timm:test_vit"]
    assert "error" in rows["timm:test_vit_relpos"]
    assert said.err.strip() == f"{len(rows)} models: {len(rows) - 2} exactly, 2 after fine-tuning"


def test_nothing_found_says_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter", "no-such-model"]) == 0
    assert "`--measure NAME` converts any other" in capfd.readouterr().err
