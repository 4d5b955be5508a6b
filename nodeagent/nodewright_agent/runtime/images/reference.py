"""Image names, as docker and containerd read them (distribution/reference grammar). Pure."""

import re
from typing import Final

import msgspec

from nodewright_agent.runtime.images.errors import InvalidImageName

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
DIGEST_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
MAX_REPOSITORY_LENGTH: Final = 255

# \Z and not $: $ would accept a trailing newline, which must never reach a file name or a log line.
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?\Z")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST: Final = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<hex>[0-9a-f]+)\Z")
_ID: Final = re.compile(r"[0-9a-f]{64}\Z")


class Reference(msgspec.Struct, frozen=True):
    """A normalised image name. Exactly the parts that were written are kept, plus the defaults."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """`domain/path`, the name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def name(self) -> str:
        """The canonical text: `docker.io/library/busybox:latest`, `host/x@sha256:...`."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_digest(self, digest: str) -> "Reference":
        """The same repository by digest only (a kubelet imageID)."""
        return Reference(self.domain, self.path, None, digest)


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of a known algorithm, in lower case and of the right length.

    Digests become file names, so nothing else may ever pass (I10).
    """
    match = _DIGEST.match(text)
    return match is not None and DIGEST_HEX_LENGTH.get(match["algorithm"]) == len(match["hex"])


def _invalid(text: str, why: str) -> InvalidImageName:
    shown = text if len(text) <= 300 else text[:300] + "..."
    # The sentence of kubelet's applyDefaultImageTag; %q there, repr-like quoting with double quotes here.
    return InvalidImageName(
        f"Failed to apply default image tag {_quote(shown)}: couldn't parse image name "
        f"{_quote(shown)}: invalid reference format{': ' + why if why else ''}"
    )


def _quote(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def parse(text: str) -> Reference:
    """Parse and normalise an image name; raises InvalidImageName with kubelet's sentence.

    `busybox` → `docker.io/library/busybox:latest`; a first component is a registry when it has a dot or a colon,
    is `localhost`, or has upper-case letters (distribution/reference splitDockerDomain).
    """
    rest = text
    digest: str | None = None
    if "@" in rest:
        rest, _, digest = rest.partition("@")
        if not is_digest(digest):
            raise _invalid(text, "invalid digest")
    if _ID.match(rest):
        raise _invalid(text, "cannot specify 64-byte hexadecimal strings")
    first, slash, remainder = rest.partition("/")
    if slash and (any(c in first for c in ".:[") or first == "localhost" or first.lower() != first):
        domain, path = first, remainder
    else:
        domain, path = DEFAULT_DOMAIN, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    path, colon, tag = path.partition(":")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    if not _DOMAIN.match(domain):
        raise _invalid(text, "invalid registry")
    if not _PATH.match(path):
        raise _invalid(text, "repository name must be lowercase" if _PATH.match(path.lower()) else "")
    if len(path) > MAX_REPOSITORY_LENGTH:
        raise _invalid(text, f"repository name must not be more than {MAX_REPOSITORY_LENGTH} characters")
    if colon and not _TAG.match(tag):
        raise _invalid(text, "invalid tag")
    if not colon:
        return Reference(domain, path, None if digest else DEFAULT_TAG, digest)
    return Reference(domain, path, tag, digest)
