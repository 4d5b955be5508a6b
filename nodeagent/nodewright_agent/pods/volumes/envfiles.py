"""Environment variables from files of an emptyDir (KEP-3721): a strict part of the shell's syntax.

# comments and blank lines
  NAME='value'   # what stands between the quotes is the value, line breaks and all; nothing is expanded
"""

from __future__ import annotations

import logging
import os
import re
import stat

from nodewright.kube.objects import Container, FileKeySelector
from nodewright_agent.pods import env
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.runtime import syscalls

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
"""More is no environment; and the file is a container's to write."""
_AFTER = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")


class EnvFileError(ValueError):
    """A file that is not in the format; the text has the line."""


def parse(text: str, key: str) -> str:
    """The value of a variable, empty when it is not there; what comes after it is not looked at. Pure."""
    at, line = 0, 0
    while at < len(text):
        line += 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        content = text[at:end].lstrip(" \t\r")
        if not content.strip() or content.startswith("#"):
            at = end + 1
            continue
        start = end - len(content)
        equals = text.find("=", start, end)
        if equals <= start:
            raise EnvFileError(f"invalid environment variable format at line {line}")
        name = text[start:equals]
        if name != name.rstrip():
            raise EnvFileError(
                f"invalid environment variable format at line {line}: whitespace before '=' is not allowed"
            )
        value, at = _quoted(text, equals + 1, line)
        line += value.count("\n")
        if name == key:
            return value
    return ""


def _quoted(text: str, at: int, line: int) -> tuple[str, int]:
    """The value that begins at a place, and where the next line begins."""
    said = f"invalid environment variable format at line {line}"
    if not text.startswith("'", at):
        raise EnvFileError(f"{said}: value must be enclosed in single quotes")
    closing = text.find("'", at + 1)
    if closing < 0:
        raise EnvFileError(f"{said}: unclosed single quote")
    rest = _AFTER.match(text, closing + 1)
    if rest is None:
        raise EnvFileError(f"{said}: unexpected content after closing quote")
    return text[at + 1 : closing], rest.end()


def read(container: Container, paths: PodPaths) -> dict[tuple[str, str, str], str]:
    """The variables that a container takes from files, by volume, path and key; empty ones are absent.

    Raises CreateContainerConfigError.
    """
    found = {}
    for selector in env.file_references(container):
        place = (selector.volume_name, selector.path, selector.key)
        if place not in found:
            found[place] = _value(selector, paths)
    return found


def _value(selector: FileKeySelector, paths: PodPaths) -> str:
    try:
        volume = paths.volume("empty-dir", selector.volume_name)
        return parse(_text(str(volume), selector.path), selector.key)
    except (OSError, VolumeError, ValueError) as error:
        log.warning("an env file cannot be read", extra={"volume": selector.volume_name, "error": str(error)})
        raise env.CreateContainerConfigError("couldn't parse env file") from None


def _text(volume: str, path: str) -> str:
    """A file of a volume; links in it cannot lead out, and nothing but a regular file is read."""
    base = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Opened for good only once it is known to be a file: a device would be the host's.
        fd = syscalls.openat2(base, path, os.O_PATH, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(base)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise EnvFileError("not a regular file")
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_BYTES:
        raise EnvFileError(f"larger than {MAX_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")
