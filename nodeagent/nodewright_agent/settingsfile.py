"""Files of settings, in JSON, or in YAML where PyYAML is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodewright_agent import documents


class SettingsFileError(ValueError):
    """A file cannot be read; the text names it and the reason."""


def read(path: Path) -> dict[str, Any]:
    """What a file says, by field. One that says nothing (empty, or comments alone) sets nothing: an empty mapping.

    Anything else that is no mapping, ``[]`` and ``false`` too, is an error. Raises SettingsFileError.
    """
    try:
        found = documents.decode(path.read_bytes())
    except OSError as error:
        raise SettingsFileError(f"{path}: {error.strerror}") from None
    except documents.DocumentError as error:
        raise SettingsFileError(f"{path}: {error}") from None
    if len(found) > 1:
        raise SettingsFileError(f"{path}: {len(found)} documents in one file")
    if not found or found[0] is None:
        return {}
    if not isinstance(found[0], dict):
        raise SettingsFileError(f"{path}: expected a mapping of settings, found {type(found[0]).__name__}")
    return found[0]
