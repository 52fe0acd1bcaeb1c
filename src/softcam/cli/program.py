"""The program: subcommands, exit codes and one clear line for every error."""

from __future__ import annotations

import os
import signal
import sys
import threading
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

from jsonargparse import ArgumentParser

from softcam._version import __version__
from softcam.cli import (
    calibrate,
    completion,
    convert,
    data,
    demo,
    dicom,
    ensemble,
    evaluate,
    explain,
    export,
    keys,
    models,
    serve,
    sweep,
    train,
    verify,
)
from softcam.cli.parsing import HelpFormatter, create_command
from softcam.errors import SoftCAMError

COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "convert": convert,
    "train": train,
    "ensemble": ensemble,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "serve": serve,
    "verify": verify,
    "keys": keys,
    "sweep": sweep,
    "data": data,
    "dicom": dicom,
    "models": models,
    "completion": completion,
}

DONE, SOME_FAILED, BAD_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; default: those of the process.

    Returns:
        0 done; 1 finished, some inputs failed; 2 bad usage or bad input; 130 interrupted; 143 terminated.
    """
    parser = create_parser()
    heard: list[int] = []
    try:
        options = parser.parse_args(arguments)
        if options.command == "completion":
            return completion.run(options.completion, parser)
        with _heeding_termination(heard):
            return int(COMMANDS[options.command].run(options[options.command]))
    except (ArgumentError, SoftCAMError, OSError, ValueError) as error:
        sys.stderr.write(f"softcam: {_one_line(error)}\n")
        return BAD_USAGE
    except KeyboardInterrupt:
        word, code = ("terminated", TERMINATED) if heard else ("interrupted", INTERRUPTED)
        sys.stderr.write(f"softcam: {word}; the same command continues\n")
        return code


@contextmanager
def _heeding_termination(heard: list[int]) -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, and note it, where nobody else has a say in that."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() == process:
            heard.append(number)
            raise KeyboardInterrupt
        # A worker that was forked off: it has nothing to put in order.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def create_parser() -> ArgumentParser:
    """Return the parser with every subcommand."""
    parser = ArgumentParser(
        prog="softcam",
        description="Image classifiers whose prediction is its own explanation.",
        version=__version__,
        formatter_class=HelpFormatter,
        exit_on_error=False,
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = create_command(module.SUMMARY, module.EXAMPLES)
        commands.add_subcommand(name, command, help=module.SUMMARY)
        # After it has been added, since a command with actions of its own must join level by level.
        module.add_arguments(command)
    return parser


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
