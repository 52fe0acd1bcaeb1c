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


def add_checks(parser: ArgumentParser) -> None:
    """Declare what becomes of images that a model was not trained for."""
    parser.add_argument(
        "--checks",
        choices=("off", "warn", "refuse"),
        default="warn",
        help="what becomes of an image that is unlike those of the training, where the model says what they were like",
    )


def add_augment(parser: ArgumentParser, what: str) -> None:
    """Declare the views of each image; named here, since `softcam.nn.AUGMENTATIONS` is slow to import.

    Args:
        parser: The command's.
        what: Rest of the help.
    """
    parser.add_argument(
        "--augment",
        choices=("mirror", "flips", "turns", "all"),
        default=None,
        help=f"average logits and maps{what}",
    )


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
