"""`softcam completion`."""

from __future__ import annotations

from argparse import ArgumentParser as Parser
from argparse import _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab
from jsonargparse import ArgumentParser

SUMMARY = "Print a script that lets a shell complete commands and flags"
EXAMPLES = """\
  softcam completion bash > ~/.local/share/bash-completion/completions/softcam
  softcam completion zsh > "${fpath[1]}/_softcam"
  softcam completion fish > ~/.config/fish/completions/softcam.fish
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="which shell")


def run(options: Any, parser: ArgumentParser) -> int:
    """Print the script for the whole program's parser."""
    for action in _list_actions(parser):
        if getattr(action, "_typehint", action.type) in (Path, Path | None) or action.dest in ("paths", "config"):
            action.complete = shtab.FILE
    print(shtab.complete(parser, shell=options.shell))  # noqa: T201 - what was asked for
    return 0


def _list_actions(parser: Parser) -> Iterator[Any]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _list_actions(command)
        else:
            yield action
