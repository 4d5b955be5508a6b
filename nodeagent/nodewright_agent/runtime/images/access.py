"""Who may use an image that is here already: kubelet's KubeletEnsureSecretPulledImages (KEP-2535).

For each image that an agent pulled, the store remembers what was shown to the registry for it: a Secret, a
ServiceAccount, or nothing that a Pod would need of its own. A Pod with none of that has to ask the registry. Rules of
kubelet 1.36's pullmanager; pure but for `PulledRecords`.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from nodewright_agent.runtime.images import records
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.errors import InvalidImageName
from nodewright_agent.runtime.images.fsutil import locked
from nodewright_agent.runtime.images.pullsettings import VerificationPolicy
from nodewright_agent.runtime.images.reference import Reference, parse

log = logging.getLogger(__name__)

Lookup = Callable[[], Awaitable[Sequence[Credential]]]
"""Looks up a Pod's credentials for an image, in order."""
WRITE_LIMIT: Final = 100
"""Secrets in a record up to which a Pod's own is added when it merely equals a known one."""


class SecretUse(msgspec.Struct, frozen=True):
    """A Secret and the digest of what it held."""

    origin: Origin
    digest: str


class Shown(msgspec.Struct, frozen=True):
    """What gave access to an image in one repository; `everybody`: no Pod needs anything."""

    everybody: bool = False
    secrets: list[SecretUse] = []
    accounts: list[Origin] = []


class PulledRecord(msgspec.Struct, frozen=True):
    """An image that an agent pulled. Known at all, it is no preloaded one, even where `shown` lacks a repository."""

    image: str
    shown: dict[str, Shown] = {}


class Verdict(enum.Enum):
    """What a check came to; the values are those of kubelet's metric."""

    POLICY = "credentialPolicyAllowed"
    KNOWN = "credentialRecordFound"
    ASK = "mustAuthenticate"
    FAILED = "error"


class Allowlist:
    """preloadedImagesVerificationAllowlist: repositories, or all below `host/path/*`. Raises ValueError."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Check and take the patterns."""
        self._names: set[str] = set()
        self._prefixes: list[str] = []
        for pattern in patterns:
            name, below = (pattern[:-1], True) if pattern.endswith("/*") else (pattern, False)
            if "*" in name or "@" in name or ":" in name.rpartition("/")[2] or name != name.strip():
                raise ValueError(f"{pattern!r}: has a tag, a digest, spaces, or a * that is not the end of /*")
            if below and len(name) > 1:
                self._prefixes.append(name)
                continue
            try:
                self._names.add(parse(name).repository)
            except InvalidImageName as error:
                raise ValueError(f"{pattern!r}: {error}") from None

    def __contains__(self, reference: Reference) -> bool:
        name = reference.repository
        return name in self._names or any(name.startswith(prefix) for prefix in self._prefixes)


class Verification:
    """An imagePullCredentialsVerificationPolicy."""

    def __init__(self, policy: VerificationPolicy = "NeverVerifyPreloadedImages", allowed: Sequence[str] = ()) -> None:
        """`allowed` is for NeverVerifyAllowlistedImages. Raises ValueError."""
        self.policy = policy
        self._allowed = Allowlist(allowed)

    def needed(self, reference: Reference, pulled: bool) -> bool:
        """Whether a Pod's credentials count for an image that is here; `pulled`: by an agent."""
        match self.policy:
            case "NeverVerify":
                return False
            case "NeverVerifyPreloadedImages":
                return pulled
            case "NeverVerifyAllowlistedImages":
                return reference not in self._allowed
            case "AlwaysVerify":
                return True


def merged(known: Shown | None, new: Shown) -> Shown:
    """What is known after another successful pull. A Secret is kept once, with what it held last."""
    if known is None or new.everybody:
        return Shown(everybody=True) if new.everybody else new
    if known.everybody:
        return known
    secrets = {use.origin: use for use in [*known.secrets, *new.secrets]}
    return Shown(
        secrets=sorted(secrets.values(), key=lambda use: _order(use.origin)),
        accounts=sorted({*known.accounts, *new.accounts}, key=_order),
    )


def shown_by(credential: Credential | None) -> Shown:
    """What a pull with a credential proves; None: that everybody may."""
    if credential is None or credential.origin is None:
        return Shown(everybody=True)
    if credential.origin.kind == "Secret":
        return Shown(secrets=[SecretUse(credential.origin, credential.digest)])
    return Shown(accounts=[credential.origin])


def entitling(shown: Shown | None, credentials: Sequence[Credential]) -> Credential | None:
    """Which of a Pod's credentials is among those that are known to give access.

    An equal one in another Secret will do, and so will the same Secret with another content. Of ServiceAccounts only
    the first counts: a Pod has one.
    """
    if shown is None:
        return None
    digests = {use.digest for use in shown.secrets}
    origins = {use.origin for use in shown.secrets}
    for credential in credentials:
        if credential.origin is None or credential.origin.kind != "Secret":
            continue
        if credential.digest in digests or (credential.origin in origins and len(origins) < WRITE_LIMIT):
            return credential
    accounts = [one for one in credentials if one.origin is not None and one.origin.kind == "ServiceAccount"]
    return accounts[0] if accounts and accounts[0].origin in shown.accounts else None


def is_new(record: PulledRecord, reference: Reference, credential: Credential) -> bool:
    """Whether a credential that was found good would change the record, and there is room for it."""
    known = record.shown.get(reference.repository)
    return known is not None and len(known.secrets) < WRITE_LIMIT and merged(known, shown_by(credential)) != known


def _order(origin: Origin) -> tuple[str, str, str]:
    return origin.namespace, origin.name, origin.uid


class PulledRecords:
    """The records on disk, in the store's folder: every agent on it obeys what the others found out."""

    def __init__(self, layout: records.Layout) -> None:
        """Of one store."""
        self._layout = layout

    def get(self, image_id: str) -> PulledRecord | None:
        """The record of an image; None: no agent pulled it. Blocking.

        A corrupt record becomes one that knows nobody: then everybody has to ask the registry.
        """
        try:
            return self._read(image_id)
        except msgspec.MsgspecError as error:
            path, nobody = self._layout.pulled_record(image_id), PulledRecord(image_id)
            log.warning("record of who may use an image is corrupt; Pods have to ask its registry anew",
                        extra={"record": str(path), "error": str(error)})  # fmt: skip
            with locked(self._layout.write_lock):
                records.write(path, nobody)
            return nobody

    def _read(self, image_id: str) -> PulledRecord | None:
        try:
            record = records.decode(self._layout.pulled_record(image_id).read_bytes(), PulledRecord)
        except FileNotFoundError:
            return None
        if record.image != image_id:
            raise msgspec.ValidationError("it is another image's")
        return record

    def add(self, image_id: str, repository: str, new: Shown) -> None:
        """Note what gave access. Blocking; the caller holds the write lock."""
        try:
            known = self._read(image_id)
        except msgspec.MsgspecError:
            known = None  # whoever has access besides will show it again
        before = known.shown if known is not None else {}
        shown = {**before, repository: merged(before.get(repository), new)}
        if known is None or shown != before:
            records.write(self._layout.pulled_record(image_id), PulledRecord(image_id, shown))

    def note(self, image_id: str, repository: str, credential: Credential) -> None:
        """The same for a credential that was found good without a pull; takes the lock. Blocking."""
        with locked(self._layout.write_lock):
            if self._layout.image_record(image_id).exists():
                self.add(image_id, repository, shown_by(credential))

    def count(self) -> int:
        """How many there are. Blocking."""
        return sum(1 for _ in self._layout.pulled_records.glob("[!.]*.json"))


async def check(
    verification: Verification,
    pulled: PulledRecord | None,
    reference: Reference,
    credentials: Lookup,
) -> tuple[Verdict, Credential | None]:
    """Whether a Pod may use an image that is here, and the credential that says so where one was needed.

    `credentials` looks up those of the Pod for this image; it is called only where they matter.
    """
    if not verification.needed(reference, pulled is not None):
        return Verdict.POLICY, None
    shown = pulled.shown.get(reference.repository) if pulled is not None else None
    if shown is None or not (shown.everybody or shown.secrets or shown.accounts):
        return Verdict.ASK, None
    if shown.everybody:
        return Verdict.KNOWN, None
    found = entitling(shown, await credentials())
    return (Verdict.ASK if found is None else Verdict.KNOWN), found
