"""How the house's docstrings are read by griffe, which knows neither named tuples nor a single example.

`mkdocs.yml` names this file among griffe's extensions.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Gives named tuples their constructor, and the heading `Example` the meaning of `Examples`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Read what follows `Example:` as doctests."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)

    def on_class_members(self, *, node: ast.AST | griffe.ObjectNode, cls: griffe.Class, **_: Any) -> None:  # noqa: ARG002
        """Add the constructor that a named tuple has."""
        if "NamedTuple" not in map(str, cls.bases) or "__init__" in cls.members:
            return
        kind = griffe.ParameterKind.positional_or_keyword
        fields = [member for member in cls.members.values() if member.is_attribute]
        parameters = [griffe.Parameter("self", kind=kind)]
        parameters += [
            griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=field.value)
            for field in fields
        ]
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=cls))
