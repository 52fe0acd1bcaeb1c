"""What the site says of the code is so; `tests/browser/test_site.py` builds and opens it."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """What writes the generated parts."""
    path = ROOT / "docs" / "theme" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_has_every_command_and_flag(reference: ModuleType) -> None:
    text = reference.command_line()
    for name, parser in reference.list_commands(reference.create_parser()):
        assert f"## `{name}`\n" in text
        flags = {
            flag for action in parser._actions if action.dest not in reference.HIDDEN for flag in action.option_strings
        }
        section = text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert {flag for flag in flags if f"`{flag}`" not in section} == set()


def test_recipes_have_every_key_with_its_meaning(reference: ModuleType) -> None:
    text = reference.recipes()
    assert "| `l1` | `0.0` | Strength of the absolute values, &gt;= 0. |".replace("&gt;", ">") in text
    assert "`elpv-demo`: Solar cells, in minutes on two CPU cores" in text
    assert not re.findall(r"^\| `\w+` \|.*\|  \|$", text, re.M), "a key has no meaning"


def test_pages_of_python_name_every_room(reference: ModuleType) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference/api").glob("*.md")}
    asked = set(re.findall(r"<!-- generated: api ([\w.]+) -->", "\n".join(pages.values())))
    rooms = {f"softcam.{path.parent.name}" for path in (ROOT / "src/softcam").glob("*/__init__.py") if is_public(path)}
    assert rooms - asked == {"softcam.cli", "softcam.survey"}, "give the room a page, or name it here"
    for module in asked:
        assert reference.list_public(module), f"{module} has no public names"


def is_public(path: Path) -> bool:
    return "__all__" in path.read_text(encoding="utf-8")


def test_names_lead_to_where_they_are_defined(reference: ModuleType) -> None:
    for name, place in reference.list_public("softcam").items():
        module, _, own = place.rpartition(".")
        tree = ast.parse((ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert own == name
        assert own in defined
