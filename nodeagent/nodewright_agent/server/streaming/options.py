"""What the query of a request asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multidict import MultiMapping


class BadQuery(Exception):
    """The request is answered with 400 and this text."""


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """Which streams the client has."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def remote_options(query: MultiMapping[str]) -> RemoteOptions:
    """Of exec and attach: ``input``, ``output``, ``error`` and ``tty`` as the API server sends them.

    Also by the names of PodExecOptions (``stdin``, ``stdout``, ``stderr``). Raises BadQuery.
    """

    def given(*names: str) -> bool:
        return any(query.get(name) in ("1", "true") for name in names)

    tty = given("tty")
    stdin, stdout = given("input", "stdin"), given("output", "stdout")
    # A terminal has one output.
    stderr = given("error", "stderr") and not tty
    if not (stdin or stdout or stderr):
        raise BadQuery("you must specify at least 1 of stdin, stdout, stderr")
    return RemoteOptions(stdin, stdout, stderr, tty)


_DIGITS = 20
_SHOWN = 100


def port(text: str) -> int:
    """A port's number. Raises BadQuery."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) < 1 << 16):
        raise BadQuery(f'unable to parse "{text[:_SHOWN]}" as a port')
    if int(text) < 1:
        raise BadQuery(f'port "{text}" must be > 0')
    return int(text)


MAX_PORTS = 100


def ports(query: MultiMapping[str]) -> list[int]:
    """Of a port-forward by WebSocket channels. Raises BadQuery."""
    given = query.getall("port", []) or query.getall("ports", [])
    if not given:
        raise BadQuery('query parameter "port" is required')
    if "" in given:
        raise BadQuery('query parameter "port" cannot be empty')
    found = [port(one) for value in given for one in value.split(",")]
    if len(found) > MAX_PORTS:
        raise BadQuery(f"{len(found)} ports: at most {MAX_PORTS}")
    return found
