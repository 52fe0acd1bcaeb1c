"""How the description of an ensemble holds those of its members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from softcam.bundle.config import BundleConfig
from softcam.errors import BundleError
from softcam.nn import Ensemble

ENSEMBLE = "ensemble"
"""Name of the architecture of several models."""


def describe_parts(
    model: Ensemble, identify: Callable[[Any], Mapping[str, Any] | None], conversion: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return the architecture of an ensemble, in JSON values.

    Args:
        model: The ensemble.
        identify: Returns the architecture of a member; None where softcam cannot build it.
        conversion: Returns its conversion report in JSON values.

    Raises:
        BundleError: If a member is a module of the user's own.
    """
    members = [{"architecture": identify(member), "conversion": conversion(member)} for member in model.members]
    if any(member["architecture"] is None for member in members):
        raise BundleError(
            "Expected members that softcam can build itself, but got a module of the user's own. Save each of them by "
            "itself, and make the ensemble in Python."
        )
    return {"name": ENSEMBLE, "arguments": {"members": members}}


def list_parts(config: BundleConfig) -> tuple[BundleConfig, ...]:
    """Return the description of each member; none where it is no ensemble.

    Raises:
        BundleError: If it is one that does not say how its members are built.
    """
    if config.architecture is None or config.architecture["name"] != ENSEMBLE:
        return ()
    members = config.architecture["arguments"].get("members")
    whole = isinstance(members, list) and all(isinstance(part, dict) and set(part) == _KEYS for part in members)
    if not whole or len(members) < 2:
        raise BundleError("Expected the architecture of an ensemble to describe two members or more. Join them again.")
    return tuple(replace(config, **part) for part in members)


_KEYS = {"architecture", "conversion"}
