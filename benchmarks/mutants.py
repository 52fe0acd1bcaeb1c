"""Small faults for a module's source, by the operators of mutmut."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

# What has no effect when it runs, and what is said to people.
_LEFT_ALONE = (
    m.Annotation()
    | m.Decorator()
    | m.Expr(value=m.SimpleString() | m.ConcatenatedString())
    | m.Assign(targets=[m.AssignTarget(target=m.Name("__all__"))])
    | m.Subscript(value=m.Name("Literal"))
)


@dataclass(frozen=True, eq=False)
class Mutant:
    """One fault.

    Args:
        module: The importable name of the module that has it.
        path: The module's file.
        line: Of the code that is replaced.
        lines: Of the statement around it; of a statement with a body, those of the code alone.
        before: The code that is replaced.
        after: What takes its place.
        tree: The module without the fault.
        old: What is replaced, in the tree.
        new: What takes its place.
    """

    module: str
    path: Path
    line: int
    lines: range
    before: str
    after: str
    tree: cst.Module = field(repr=False)
    old: cst.CSTNode = field(repr=False)
    new: cst.CSTNode = field(repr=False)

    @property
    def name(self) -> str:
        """What it is, in one line."""
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"

    def write(self) -> str | None:
        """Return the module's source with the fault; None where that is no program, or the same one."""
        replaced = self.tree.deep_replace(self.old, self.new)
        source = replaced.code if isinstance(replaced, cst.Module) else ""
        try:
            same = ast.dump(ast.parse(source)) == ast.dump(ast.parse(self.tree.code))
        except SyntaxError:
            return None
        return None if same else source


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, range, cst.CSTNode, cst.CSTNode]] = []
        self._statements: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, _LEFT_ALONE):
            return False
        if isinstance(node, cst.SimpleStatementLine):
            self._statements.append(node)
        for new in _replace(node):
            position = self.get_metadata(PositionProvider, node)
            around = self.get_metadata(PositionProvider, self._statements[-1]) if self._statements else position
            self.found.append((position.start.line, range(around.start.line, around.end.line + 1), node, new))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._statements and self._statements[-1] is original_node:
            self._statements.pop()


def _replace(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.SimpleString) and " " in node.value:
        return  # a sentence
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            yield from operator(node)


def list_mutants(path: Path, module: str) -> list[Mutant]:
    """Return every fault that the operators make in a module, in the order of its source.

    Args:
        path: The module's file.
        module: Its importable name.
    """
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    finder = _Finder()
    wrapper.visit(finder)
    tree = wrapper.module

    def show(node: Any) -> str:
        return " ".join(tree.code_for_node(node).split())

    return [
        Mutant(module, path, line, lines, show(old), show(new), tree, old, new)
        for line, lines, old, new in finder.found
    ]
