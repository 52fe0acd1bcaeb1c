from __future__ import annotations

import inspect

import pytest

from softcam import errors
from softcam.errors import ManifestError, MissingExtraError, SoftCAMError, SoftCAMWarning

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]


@pytest.mark.parametrize("error", [cls for cls in CLASSES if not issubclass(cls, Warning)])
def test_every_error_is_a_softcam_error(error: type[Exception]) -> None:
    assert issubclass(error, SoftCAMError)
    assert error.__doc__


def test_the_warning_is_not_an_error() -> None:
    assert issubclass(SoftCAMWarning, UserWarning)
    assert not issubclass(SoftCAMWarning, SoftCAMError)


def test_a_missing_extra_is_an_import_error_that_says_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"package 'captum' to be installed\. Run: pip install 'softcam\[peers\]'"):
        raise MissingExtraError("captum", "peers")


def test_a_manifest_error_keeps_every_problem() -> None:
    error = ManifestError(["row 2: no label", "row 5: no file"])
    assert error.problems == ("row 2: no label", "row 5: no file")
    assert str(error) == "2 problem(s) in the manifest: row 2: no label; row 5: no file"


@pytest.mark.parametrize(
    ("count", "ending"), [(10, "; row 9"), (11, "; row 9; and 1 more"), (500, "; row 9; and 490 more")]
)
def test_a_manifest_error_shows_ten_problems(count: int, ending: str) -> None:
    error = ManifestError([f"row {row}" for row in range(count)])
    assert str(error).startswith(f"{count} problem(s) in the manifest: row 0; row 1;")
    assert str(error).endswith(ending)
    assert len(error.problems) == count
