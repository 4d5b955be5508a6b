"""WWW-Authenticate challenges of registries, and the rules for where credentials may go. Pure."""

import re
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from nodewright_agent.runtime.images.errors import ErrImagePull
from nodewright_agent.runtime.images.settings import Endpoint, host_only, is_private_address

_MAX_HEADER: Final = 8192
_SCHEME: Final = re.compile(r"\s*(Bearer|Basic)(?:\s+|\Z)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'\s*,?\s*([A-Za-z0-9_-]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


class Challenge(msgspec.Struct, frozen=True):
    """What a registry asks for: scheme `bearer` or `basic`, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse(header: str) -> Challenge:
    """The first Bearer or Basic challenge of a header; raises ErrImagePull when there is none to understand."""
    if len(header) > _MAX_HEADER:
        raise ErrImagePull("registry sent an oversized WWW-Authenticate header")
    scheme = _SCHEME.match(header)
    if scheme is None:
        raise ErrImagePull(f"registry asks for an unknown authentication scheme: {header[:60]!r}")
    parameters: dict[str, str] = {}
    position = scheme.end()
    while match := _PARAMETER.match(header, position):
        value = match[2] if match[2] is not None else match[3]
        parameters.setdefault(match[1].lower(), re.sub(r"\\(.)", r"\1", value))
        position = match.end()
    return Challenge(scheme[1].lower(), parameters)


def token_url(challenge: Challenge, endpoint: Endpoint, repository: str) -> str:
    """The URL to fetch a pull token from; raises ErrImagePull where the realm may not be trusted (I14).

    The realm may be another host (that is how the large registries work), but: https unless the registry itself is
    plain http; no user part; and no private, loopback or link-local address literal unless it is the registry's own
    host, or configured as a token host. The scope is ours, not the registry's: a token for anything else is of no use.
    """
    realm = challenge.parameters.get("realm", "")
    own = urlsplit(endpoint.base)
    try:
        url = urlsplit(realm)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise ErrImagePull(f"registry names a malformed token realm {realm[:200]!r}") from None
    if url.scheme != "https" and not (url.scheme == "http" and own.scheme == "http"):
        raise ErrImagePull(f"registry names token realm {realm[:200]!r}, which is not https")
    trusted = host == (own.hostname or "") or host in endpoint.token_hosts
    if not host or "@" in url.netloc or (is_private_address(host) and not trusted):
        raise ErrImagePull(f"registry names token realm {realm[:200]!r}, which is not allowed")
    query = {"scope": f"repository:{repository}:pull"}
    if challenge.parameters.get("service"):
        query["service"] = challenge.parameters["service"]
    return url._replace(query="&".join(filter(None, (url.query, urlencode(query)))), fragment="").geturl()


def redirect_allowed(old: str, new: str, endpoint: Endpoint) -> bool:
    """Whether a redirect of a blob may be followed: never down to http, never into this host or its network."""
    try:
        source, target = urlsplit(old), urlsplit(new)
        host, _ = target.hostname or "", target.port
    except ValueError:
        return False
    if target.scheme not in ("https", "http") or (source.scheme == "https" and target.scheme != "https"):
        return False
    own = host_only(urlsplit(endpoint.base).netloc)
    return bool(host) and "@" not in target.netloc and (host == own or not is_private_address(host))


def same_origin(old: str, new: str) -> bool:
    """Whether credentials for one URL may be sent to the other."""
    a, b = urlsplit(old), urlsplit(new)
    return (a.scheme, a.hostname, a.port) == (b.scheme, b.hostname, b.port)
