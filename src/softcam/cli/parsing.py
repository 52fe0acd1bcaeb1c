"""How the parser of a command is made."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of examples and names the default of every flag."""


def create_command(summary: str, examples: str) -> ArgumentParser:
    """Return an empty parser whose help ends with examples.

    Args:
        summary: What the command does, in one line.
        examples: Indented command lines.
    """
    return ArgumentParser(
        description=f"{summary}.",
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
        exit_on_error=False,
    )
