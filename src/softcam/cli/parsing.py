"""How the parser of a command is made."""

from __future__ import annotations

from argparse import SUPPRESS, Action, RawDescriptionHelpFormatter, _HelpAction, _VersionAction

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of examples, and names the default of a flag where there is one to name."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if isinstance(action, _HelpAction | _VersionAction):
            return f"{text[:1].lower()}{text[1:]}".rstrip(".")
        number = isinstance(action.default, int | float) and not isinstance(action.default, bool)
        worth = number or (bool(action.default) and action.default != SUPPRESS)
        said = "default" in text or not action.option_strings
        return f"{text} (default: %(default)s)" if worth and not said else text


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
