"""Errors of models and of their registry.

`stream_app.errors` draws the whole tree of the product; these are its branch for code that only loads and scores.
"""

from __future__ import annotations

from pydantic import ValidationError


class GanomalyError(Exception):
    """Whatever the product raises on purpose. The message says what is wrong and what to do next."""


class ModelError(GanomalyError):
    """A model can't be built, trained or used as asked."""


class TrainingError(ModelError):
    """Training can't start or did not lead to a usable model; nothing was saved."""


class RegistryError(ModelError):
    """The registry can't be read or written."""


class ModelNotFound(RegistryError):
    """No such detector or version, or a detector without a champion."""


class DigestMismatch(RegistryError):
    """The bytes of the weights are not those that the manifest names; they are refused."""


class ManifestError(RegistryError):
    """A manifest is missing, unreadable, or of a schema this release doesn't know."""


class StaleToken(RegistryError):
    """A trainer's fencing token is lower than one that the registry has seen: another trainer has taken over."""


class RolledBack(RegistryError):
    """A version that was rolled back, which only a person puts in service again."""


class ChampionChanged(RegistryError):
    """Another version was put in service than the one that a promotion was to replace."""


def first_fault(error: ValidationError, whole: str) -> str:
    """The first field that is wrong, and how; `whole` is named where it is not one field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
