"""The files of the page, and all of them in one that needs nothing else."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from softcam.viewer.payload import to_json

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
_ENTRY = "main.js"
_STYLE_TAG = '<link rel="stylesheet" href="static/viewer.css">'
_LIBRARY_TAG = '<script src="static/vendor/d3-zoom.js"></script>'
_ENTRY_TAG = '<script type="module" src="static/main.js"></script>'
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)

# The page with its data may neither load nor send anything, whatever it holds.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:"


class StaticFile(NamedTuple):
    """One file of the page.

    Args:
        content: Its bytes.
        media_type: What to send as its `Content-Type`.
    """

    content: bytes
    media_type: str


def list_static() -> tuple[str, ...]:
    """Return the names of the page's files, as they follow `static/` in its addresses."""
    return tuple(sorted(name for name in _read_all() if name != "index.html"))


def read_static(name: str) -> StaticFile:
    """Return a file of the page; nothing but the files of `list_static` can be read.

    Args:
        name: What follows `static/` in the address.

    Raises:
        KeyError: If there is no such file.
    """
    return _read_all()[name]


def read_index() -> StaticFile:
    """Return the page itself, whose other files lie under `static/` beside it."""
    return _read_all()["index.html"]


def build_page(data: dict[str, Any]) -> str:
    """Return the page with styles, scripts and data inside, which works without a network.

    Args:
        data: `models`, a list of `describe_model`'s values, and `predictions`, a list of `describe`'s, each with a
            `name`.

    Raises:
        ValueError: If a number in the data is NaN or infinite.
    """
    page = _read_text("index.html")
    inner = {
        "<title>": f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n  <title>',
        _STYLE_TAG: f"<style>\n{_read_text('viewer.css')}</style>",
        _LIBRARY_TAG: f"<script>\n{_read_text('vendor/d3-zoom.js')}</script>",
        _ENTRY_TAG: f'{_embed(data)}\n<script type="module">\n{join_modules()}</script>',
    }
    for tag, content in inner.items():
        before, found, after = page.partition(tag)
        if not found:
            raise RuntimeError(
                f"Expected the page to hold {tag!r}, but it does not. Keep index.html and page.py alike."
            )
        page = before + content + after
    return page


def join_modules() -> str:
    """Return all modules of the page as one: each after those that it imports, which is why names are unique."""
    order: list[str] = []
    _visit(_ENTRY, order, ())
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read_text(name))) for name in order)


def _visit(name: str, order: list[str], trail: tuple[str, ...]) -> None:
    if name in trail:
        raise RuntimeError(f"Expected modules without cycles, but got {' -> '.join((*trail, name))}.")
    if name in order:
        return
    for imported in _IMPORT.findall(_read_text(name)):
        _visit(imported, order, (*trail, name))
    order.append(name)


def _embed(data: dict[str, Any]) -> str:
    # Inside a script element only "<" can end the element or start a comment.
    text = to_json(data).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="softcam-embedded">{text}</script>'


def _read_text(name: str) -> str:
    return _read_all()[name].content.decode("utf-8")


@cache
def _read_all() -> dict[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    _collect(files("softcam.viewer") / "static", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, StaticFile]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
        elif (suffix := entry.name.rpartition(".")[2]) in _MEDIA_TYPES:
            found[prefix + entry.name] = StaticFile(entry.read_bytes(), _MEDIA_TYPES[suffix])
