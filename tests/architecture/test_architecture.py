"""The house as it was drawn: floors, lazy root, sizes, names, docstrings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PACKAGE = SRC / "softcam"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "files": 0,
    "_version": 0,
    "versions": 0,
    "cores": 0,
    "libraries": 0.5,  # above the exceptions, below every room
    "runs": 0.5,
    "nn": 1,
    "metrics": 1,
    "imaging": 1,
    "backbones": 1,
    "data": 2,
    "attribution": 2,
    "bundle": 2,
    "survey": 2,
    "export": 3,
    "predict": 3.5,  # above the graphs that it runs
    "training": 3,
    "evaluation": 4,
    "records": 4.5,  # above the evaluation, below the folders that hold records
    "reporting": 5,
    "sweep": 5.5,  # above the charts that it draws with
    "interop": 5,
    "viewer": 5,
    "distributed": 5,
    "demo": 6,
    "serving": 6,
    "cli": 7,
    "__main__": 8,
}

HEAVY = (
    "torch", "torchvision", "timm", "lightning", "torchmetrics", "captum", "pytorch_grad_cam", "numpy", "scipy",
    "pandas", "pyarrow", "PIL", "matplotlib", "jinja2", "rich", "jsonargparse", "yaml", "safetensors", "sklearn",
    "skimage", "pydicom", "pylibjpeg", "highdicom", "pynetdicom",
)  # fmt: skip

MAX_MODULE_LINES = 400
MAX_BODY_LINES = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def list_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything a file imports, inside functions too."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if origin == PACKAGE.name:
                yield node.lineno, origin
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif is_import_call(node):
            yield node.lineno, node.args[0].value  # type: ignore[attr-defined]


def is_import_call(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in ("import_module", "__import__") and isinstance(node.args[0].value, str)


def to_module(name: str) -> str | None:
    """Return the module of this package that an imported name is, or lies in."""
    while name:
        if name in MODULES:
            return name
        name = name.rpartition(".")[0]
    return None


def list_edges(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in list_imports(path):
        target = to_module(name)
        if target is not None:
            yield line, target


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


INSIDE = [path for path in FILES if path.parent != PACKAGE or path.name != "__init__.py"]


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in MODULES} - {""}
    assert sorted(rooms - FLOORS.keys()) == []


def test_the_page_about_the_house_has_the_same_rooms_and_floors() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    told = {room: float(floor) for floor, room in re.findall(r"^\| ([\d.]+) \| `(\w+)` \|", page, re.MULTILINE)}
    assert told == FLOORS, "mend the table of docs/explanation/architecture.md"


def test_the_picture_of_the_house_is_that_of_the_page() -> None:
    folder = ROOT / "docs" / "images"
    spec = importlib.util.spec_from_file_location("make_architecture", folder / "make_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = (folder / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == module.draw(FLOORS), "run `python docs/images/make_architecture.py`"


def test_imports_point_to_a_lower_floor_or_a_sibling() -> None:
    wrong = [
        f"{place(path, line)} imports {target}"
        for path in INSIDE
        for line, target in list_edges(path)
        if room_of(target)
        and room_of(target) != room_of(module_name(path))
        and FLOORS[room_of(target)] >= FLOORS[room_of(module_name(path))]
    ]
    assert wrong == []


def test_no_file_inside_imports_the_root_package() -> None:
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in INSIDE
        for line, name in list_imports(path)
        if name == "softcam" or (to_module(name) == "softcam" and name != "softcam")
    ]
    assert wrong == []


def test_imports_are_absolute() -> None:
    wrong = [place(path, line) for path in FILES for line, name in list_imports(path) if name.startswith(".")]
    assert wrong == []


def test_no_cycle_between_modules() -> None:
    graph = {
        name: {target for _, target in list_edges(path)} - {name} for name, path in MODULES.items() if path in INSIDE
    }
    done: set[str] = set()

    def find_cycle(module: str, trail: tuple[str, ...]) -> tuple[str, ...]:
        if module in trail:
            return (*trail[trail.index(module) :], module)
        if module in done:
            return ()
        for target in sorted(graph.get(module, ())):
            if cycle := find_cycle(target, (*trail, module)):
                return cycle
        done.add(module)
        return ()

    assert [cycle for module in sorted(graph) if (cycle := find_cycle(module, ()))] == []


def loaded_after(statement: str) -> set[str]:
    """Return the names of the modules that a fresh process has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=SRC)
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_after("import softcam; softcam.__version__; dir(softcam)")
    assert loaded.intersection(HEAVY) == set()
    ours = {name for name in loaded if name.startswith("softcam")}
    assert ours == {"softcam", "softcam._version", "softcam.errors", "softcam.libraries"}


def test_importing_the_method_loads_torch_and_its_own_room() -> None:
    loaded = loaded_after("import softcam.nn")
    assert "torch" in loaded
    others = set(HEAVY) - {"torch", "numpy"}  # torch loads numpy where there is one
    assert loaded & others == set()
    rooms = {room_of(name) for name in loaded if name.startswith("softcam.")}
    assert rooms <= {"_version", "errors", "files", "libraries", "nn"}


def test_importing_imaging_loads_nothing_for_dicom() -> None:
    assert not loaded_after("import softcam.imaging").intersection({"pydicom", "pylibjpeg", "highdicom", "pynetdicom"})


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    if "softcam.cli" not in MODULES:
        pytest.skip("there is no command line yet")
    assert (
        loaded_after("import softcam.cli").intersection({"torch", "pandas", "lightning", "matplotlib", "timm"}) == set()
    )


def list_names(path: Path) -> list[str]:
    for node in parse(path).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if list_names(path)])
def test_every_public_name_resolves(module: str) -> None:
    loaded = importlib.import_module(module)
    names = list_names(MODULES[module])
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert names == sorted(set(names), key=names.index), "a name is listed twice"


def test_every_package_says_what_is_public() -> None:
    silent = [
        name
        for name, path in MODULES.items()
        if path.name == "__init__.py" and not list_names(path) and len(parse(path).body) > 1
    ]
    assert silent == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


def count_body_lines(function: Function) -> int:
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def test_functions_are_short() -> None:
    long = [
        f"{place(path, node.lineno)} {node.name}: {count_body_lines(node)} lines"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, Function) and count_body_lines(node) > MAX_BODY_LINES
    ]
    assert long == []


def test_a_function_lives_with_the_noun_it_serves() -> None:
    drawer = re.compile(r"(utils?|common|helpers?|misc|tools|shared|base_utils)$")
    names = {part for path in PACKAGE.rglob("*") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert sorted(name for name in names if drawer.match(name)) == []


def list_public(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the public functions, classes and methods of a module, with their dotted names."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from list_public(node, f"{prefix}{node.name}.")


def test_everything_public_is_documented() -> None:
    bare = [
        f"{place(path, node.lineno)} {name}"
        for path in FILES
        for name, node in list_public(parse(path))
        if not ast.get_docstring(node)
    ]
    bare += [place(path, 1) for path in FILES if not ast.get_docstring(parse(path)) and parse(path).body]
    assert bare == []


def test_no_function_changes_a_global() -> None:
    wrong = [
        place(path, node.lineno) for path in FILES for node in ast.walk(parse(path)) if isinstance(node, ast.Global)
    ]
    assert wrong == []


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/softcam/_version.py"
    assigned = [
        place(path, node.lineno)
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assign)
        and any(getattr(t, "id", "") in ("__version__", "VERSION") for t in node.targets)
    ]
    assert assigned == ["src/softcam/_version.py:3"]


def test_the_version_is_that_of_the_package() -> None:
    from softcam import __version__  # noqa: PLC0415 - the root is under test here alone

    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", __version__)
    assert f'__version__ = "{__version__}"' in (PACKAGE / "_version.py").read_text(encoding="utf-8")


def test_the_citation_names_the_same_version() -> None:
    citation = ROOT / "CITATION.cff"
    if not citation.is_file():
        pytest.skip("there is no CITATION.cff yet")
    from softcam import __version__  # noqa: PLC0415 - see above

    versions = re.findall(r"^version:\s*\"?([^\s\"]+)", citation.read_text(encoding="utf-8"), re.MULTILINE)
    assert versions in ([], [__version__])
