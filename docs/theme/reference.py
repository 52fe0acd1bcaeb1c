"""The parts of the reference that are written from the code: commands, recipes, metrics and methods."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser

from softcam.attribution.methods import METHODS
from softcam.cli.program import COMMANDS, create_parser
from softcam.metrics.glossary import MEASURES
from softcam.training.recipe import Recipe, list_recipes

SOURCES = Path(__file__).resolve().parents[2] / "src"
HIDDEN = {"help", "print_config", "version"}


def command_line() -> str:
    """Return every command with its arguments and examples."""
    parts = [f"`softcam {name}` | {module.SUMMARY}." for name, module in COMMANDS.items()]
    table = ["| command | |", "|---|---|", *(f"| {part} |" for part in parts)]
    sections = [section for name, parser in list_commands(create_parser()) for section in describe(name, parser)]
    return "\n".join([*table, "", *sections])


def list_commands(parser: ArgumentParser, path: str = "softcam") -> Iterator[tuple[str, ArgumentParser]]:
    """Yield every command under a parser, commands of commands after them."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, command in action._name_parser_map.items():  # noqa: SLF001
                yield f"{path} {name}", command
                yield from list_commands(command, f"{path} {name}")


def describe(name: str, parser: ArgumentParser) -> Iterator[str]:
    """Yield the lines about one command."""
    depth = "##" if name.count(" ") == 1 else "###"
    yield f"{depth} `{name}`\n\n{parser.description}\n"
    actions = [action for action in parser._actions if action.dest not in HIDDEN]  # noqa: SLF001
    rows = [row(action) for action in actions if not isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    if rows:
        yield "\n".join(["| argument | default | |", "|---|---|---|", *rows, ""])
    if depth == "##":
        examples = "\n".join(line[2:] for line in (parser.epilog or "").splitlines()[1:])
        yield f"```text\n{examples.rstrip()}\n```\n"


def row(action: argparse.Action) -> str:
    """Return an argument as a row of a table."""
    name = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar or action.dest}`"
    given = isinstance(action.nargs, int) and action.nargs == 0
    if action.required and action.option_strings:
        default = "required"
    elif action.default in (None, argparse.SUPPRESS, ()) or given or not action.option_strings:
        default = ""
    else:
        default = f"`{action.default}`"
    choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
    return f"| {name} | {default} | {escape(action.help or '')}.{choices} |"


def recipes() -> str:
    """Return every key of a recipe, and the recipes that come with softcam."""
    lines = list(describe_part(Recipe, ""))
    lines += ["## Recipes that come with softcam", ""]
    folder = resources.files("softcam.training") / "recipes"
    for name in list_recipes():
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
        comment = " ".join(re.match(r"(?:#.*\n)+", text)[0].replace("#", "").split())  # type: ignore[index]
        summary = escape(re.split(r"(?<=\.)\s", comment)[0])
        indented = "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
        lines += [f'??? note "`{name}`: {summary}"', "", "    ```text", indented + "    ```", ""]
    return "\n".join(lines)


def describe_part(part: type, key: str) -> Iterator[str]:
    """Yield the lines about one mapping of a recipe and those inside it."""
    doc = docstring_parser.parse(part.__doc__ or "")
    meanings = {entry.arg_name: " ".join((entry.description or "").split()) for entry in doc.params}
    hints = typing.get_type_hints(part)
    yield f"## {f'`{key}`' if key else 'The whole'}\n\n{doc.short_description}\n"
    yield "| key | default | |\n|---|---|---|"
    inner = []
    for entry in dataclasses.fields(part):
        nested = find_nested(hints[entry.name])
        if nested:
            inner.append((nested, f"{key}.{entry.name}".strip(".")))
        yield f"| `{entry.name}` | {show_default(entry, nested)} | {escape(meanings.get(entry.name, ''))} |"
    yield ""
    for nested, name in inner:
        yield from describe_part(nested, name)


def fields(place: str) -> str:
    """Return the fields of a dataclass by its dotted name."""
    module, _, name = place.rpartition(".")
    part = getattr(importlib.import_module(module), name)
    doc = docstring_parser.parse(part.__doc__ or "")
    rows = [f"| `{entry.arg_name}` | {escape(' '.join((entry.description or '').split()))} |" for entry in doc.params]
    return "\n".join(["| key | |", "|---|---|", *rows])


def find_nested(hint: Any) -> type | None:
    """Return the dataclass that a value is of, or whose list it is."""
    return next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)


def show_default(entry: dataclasses.Field[Any], nested: type | None) -> str:
    """Return what a key is if a recipe leaves it out."""
    if nested:
        return "" if entry.default_factory is not dataclasses.MISSING else "required"
    if entry.default_factory is not dataclasses.MISSING:
        return f"`{entry.default_factory()}`"
    if entry.default is dataclasses.MISSING:
        return "" if entry.name == "name" else "required"
    return "" if entry.default is None else f"`{entry.default}`"


def api(module: str) -> str:
    """Return what asks mkdocstrings for every public name of a module, where it is defined."""
    return "\n".join(f"::: {place}\n" for place in list_public(module).values())


def names(module: str) -> str:
    """Return the public names of a module, each with a link to where it is described."""
    return "\n".join(f"- [`{name}`][{place}]" for name, place in list_public(module).items())


def list_public(module: str) -> dict[str, str]:
    """Return the public names of a module and where each is defined, without importing it."""
    path = SOURCES.joinpath(*module.split("."))
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))
    found = {
        alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and path.is_dir()
        for alias in node.names
    }
    own = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    listed = next((node.value for node in tree.body if is_all(node)), None)
    public = own if listed is None else ast.literal_eval(listed)
    shown = [name for name in public if not name.startswith("_")]
    return {name: follow(found[name]) if name in found else f"{module}.{name}" for name in shown}


def follow(place: str) -> str:
    """Return where a name is defined that a package may only hand on."""
    module, _, name = place.rpartition(".")
    is_package = SOURCES.joinpath(*module.split(".")).is_dir()
    return list_public(module).get(name, place) if is_package else place


def is_all(node: ast.stmt) -> typing.TypeGuard[ast.Assign]:
    """Return whether a statement says what is public."""
    return isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)


def imports() -> str:
    """Return which rooms each room of the package imports."""
    lines = ["| room | imports |", "|---|---|"]
    for room, others in sorted(list_imports().items()):
        lines.append(f"| `{room}` | {', '.join(f'`{other}`' for other in sorted(others)) or 'nothing'} |")
    return "\n".join(lines)


def list_imports() -> dict[str, set[str]]:
    """Return the rooms that the files of each room import, inside functions too."""
    package = SOURCES / "softcam"
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
        ]
        modules = [node.module for node in nodes if node.module != "softcam"]
        modules += [f"softcam.{alias.name}" for node in nodes if node.module == "softcam" for alias in node.names]
        others = {module.split(".")[1] for module in modules if module and module.startswith("softcam.")}
        found.setdefault(room, set()).update(others - {room})
    return found


def metrics() -> str:
    """Return the glossary of metrics, family after family."""
    lines = []
    for family in dict.fromkeys(found.family for found in MEASURES.values()):
        lines += [f"## {family}", "", "| name | in tables | better | |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | {found.title} | {found.direction} | {escape(found.meaning)} |"
            for name, found in MEASURES.items()
            if found.family == family
        ]
        lines.append("")
    return "\n".join(lines)


def methods() -> str:
    """Return every explanation method."""
    lines = ["| name | method | cost | source | |", "|---|---|---|---|---|"]
    lines += [
        f"| `{method.name}` | {method.title} | {method.cost} | {escape(method.reference)} | {escape(method.notes)} |"
        for method in METHODS.values()
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text that is safe in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
