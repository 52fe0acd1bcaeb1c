"""What the site has beyond the files of `docs`: pages of the project's own files, of notebooks, and generated text.

`mkdocs.yml` names this file among its hooks.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "CITATION.cff": "project/citation.md",
    "LICENSE": "project/license.md",
    "examples/README.md": "examples/index.md",
}
"""Files of the project that are pages, and where they are on the site."""

OPEN_SECTIONS = {"How-to": "how-to", "Explanation": "explanation"}
"""Sections that take in every page of a folder, and the folder."""

LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
MARK = re.compile(r"<!-- generated: (\w+)(?: ([\w.]+))? -->")


def list_published() -> dict[str, str]:
    """Return where on the site each file of the project is that lies outside `docs`."""
    notebooks = sorted((ROOT / "examples").glob("*.ipynb"))
    return PROJECT | {f"examples/{path.name}": f"examples/{path.stem}.md" for path in notebooks}


PUBLISHED = list_published()
SOURCES = {page: source for source, page in PUBLISHED.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name at the end of their section."""
    named = json.dumps(config.nav)
    for section in config.nav or []:
        for title in OPEN_SECTIONS.keys() & section.keys():
            pages = sorted((Path(config.docs_dir) / OPEN_SECTIONS[title]).glob("*.md"))
            paths = [path.relative_to(config.docs_dir).as_posix() for path in pages]
            section[title] += [path for path in paths if f'"{path}"' not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every published file of the project."""
    for source, page in PUBLISHED.items():
        files.append(File.generated(config, page, content=read_page(ROOT / source)))
    return files


def read_page(path: Path) -> str:
    """Return a file of the project as Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return read_notebook(json.loads(text), path.name)
    if path.suffix == ".md":
        return text
    title = {"LICENSE": "License", "CITATION.cff": "Citation"}[path.name]
    return f"# {title}\n\n```{'yaml' if path.suffix else 'text'}\n{text.strip()}\n```\n"


def read_notebook(notebook: dict[str, Any], name: str) -> str:
    """Return a notebook without outputs as Markdown, its address under the title."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, f"*The notebook `examples/{name}` of the checkout.*", rest.strip(), *parts[1:]]) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs
    """Write the generated parts, and turn links between files of the project into links between pages."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")
    text = MARK.sub(lambda mark: getattr(reference, mark[1])(*filter(None, [mark[2]])), markdown)
    return LINK.sub(lambda link: f"{link[1]}{relocate(link[2], source, here)}{link[3]}", text)


def relocate(target: str, source: str, page: str) -> str:
    """Return a link's target as a page has it.

    Args:
        target: The target as the file has it.
        source: The file that has the link, from the root of the project.
        page: Where the file is on the site.
    """
    if re.match(r"[a-z]+:", target):
        return target
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    published = PUBLISHED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return target if published is None else posixpath.relpath(published, posixpath.dirname(page) or ".")
