"""Registry credentials: dockerconfigjson secrets and which of them fit an image, by kubelet's rules. Pure."""

import base64
import binascii
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from nodewright_agent.runtime.images.reference import DEFAULT_DOMAIN, Reference

DOCKER_CONFIG_JSON = "kubernetes.io/dockerconfigjson"
DOCKER_CFG = "kubernetes.io/dockercfg"


class Origin(msgspec.Struct, frozen=True):
    """The object of the API that a credential comes from."""

    kind: Literal["Secret", "ServiceAccount"]
    uid: str
    namespace: str
    name: str


class Credential(msgspec.Struct, frozen=True):
    """A user and password for what `registry` matches: `host[:port][/path]`, with `*` within host labels."""

    registry: str
    username: str = ""
    password: str = ""
    identity_token: str = ""
    origin: Origin | None = None
    """Whose it is; None: the node's, for every Pod on it."""

    @property
    def digest(self) -> str:
        """SHA-256 of what is secret in it, in hex: equal for equal credentials, whatever they are kept in."""
        parts = json.dumps([self.username, self.password, self.identity_token])
        return hashlib.sha256(parts.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Credential({self.registry!r}, {self.username!r}, ...)"  # never the secret, logs keep what they get


def parse_docker_config(
    data: bytes, *, secret_type: str = DOCKER_CONFIG_JSON, origin: Origin | None = None
) -> list[Credential]:
    """Read a `.dockerconfigjson` (or older `.dockercfg`) document; raises ValueError with what is wrong."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    entries: Any = (
        document.get("auths", {}) if isinstance(document, dict) and secret_type == DOCKER_CONFIG_JSON else document
    )
    if not isinstance(entries, dict):
        raise ValueError("auths must be an object")
    result = []
    for registry, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"auths[{registry!r}] must be an object")
        username, password = entry.get("username") or "", entry.get("password") or ""
        if entry.get("auth"):
            username, password = _decode_auth(str(entry["auth"]), registry)
        token = entry.get("identitytoken") or ""
        if not all(isinstance(item, str) for item in (username, password, token)):
            raise ValueError(f"auths[{registry!r}] has a field that is not a string")
        result.append(Credential(strip_scheme(registry), username, password, token, origin))
    return result


def _decode_auth(auth: str, registry: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"auths[{registry!r}].auth is not base64") from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise ValueError(f"auths[{registry!r}].auth has no colon")
    return username, password.rstrip("\0")


def strip_scheme(registry: str) -> str:
    """`https://index.docker.io/v1/` and the like → host[:port][/path]."""
    text = registry.partition("://")[2] or registry
    host, slash, path = text.partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):  # the old form of a whole registry
        path = ""
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_DOMAIN
    return f"{host}/{path}" if slash and path else host


def matching(credentials: Sequence[Credential], reference: Reference) -> list[Credential]:
    """The credentials of one place to try for an image, most specific first.

    kubelet's BasicDockerKeyring: keys in reverse order of the alphabet, equal ones as they came.
    """
    found = [item for item in credentials if fits(item.registry, reference)]
    return sorted(found, key=lambda item: item.registry, reverse=True)


def in_order(places: Iterable[Sequence[Credential]], reference: Reference) -> list[Credential]:
    """The credentials to try for an image: those of the first place, then the next (kubelet's UnionDockerKeyring)."""
    return [item for place in places for item in matching(place, reference)]


def fits(pattern: str, reference: Reference) -> bool:
    """Whether `host[:port][/path]` covers an image's repository.

    A host label pattern matches one label only: `*.example.com` fits `a.example.com`, never `a.b.example.com`. A path
    covers whole components: `team` fits `team/app` and not `teams/app`, where upstream compares letters only.
    """
    host, _, path = pattern.partition("/")
    path = path.rstrip("/")
    if path and not (reference.path == path or reference.path.startswith(path + "/")):
        return False
    wanted, given = host.split("."), reference.domain.split(".")
    wanted_port, given_port = (wanted[-1].partition(":")[2], given[-1].partition(":")[2])
    wanted[-1], given[-1] = wanted[-1].partition(":")[0], given[-1].partition(":")[0]
    if len(wanted) != len(given) or wanted_port != given_port:
        return False
    return all(fnmatch.fnmatchcase(label, glob) for label, glob in zip(given, wanted, strict=True))
