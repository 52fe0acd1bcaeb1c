"""What every benchmark understands: `--quick` for a small version of it, and `--out` for the file of results."""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
QUICK = Path(__file__).parent / "quick"


def create_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--quick` and `--out`.

    Args:
        description: The script's docstring.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a small version, which says that it runs and not much more"
    )
    parser.add_argument("--out", type=Path, default=None, help="file of results; default: in benchmarks/results/")
    return parser


def choose_out(options: argparse.Namespace, result: Path) -> Path:
    """Return where the results go; those of a small version never take the place of the others.

    Args:
        options: What the parser read.
        result: Where they go by default.
    """
    return options.out or (QUICK / result.name if options.quick else result)
