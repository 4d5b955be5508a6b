"""Which DaemonSet of which kind a verb is about: shared by `rollout` and `explain daemonset`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nodewright.cli.output import USAGE, CliError

if TYPE_CHECKING:
    from nodewright.controllers.daemonset.kinds import Kind
    from nodewright.controllers.daemonset.model import DaemonSet
    from nodewright.kube.client import Client
    from nodewright.kube.config import Config


class Api(StrEnum):
    """Values of `--api`."""

    NODEWRIGHT = "nodewright.dev/v1alpha1"
    APPS = "apps/v1"


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[KIND/][NAMESPACE/]NAME",
        help="The DaemonSet. KIND is nds (nodewright.dev), ds (apps/v1), or daemonset: the one that exists.",
    ),
]
ApiOption = Annotated[Api | None, typer.Option("--api", help="The DaemonSet's API, where both have one of the name.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where NAME has no NAMESPACE/.")
]

_ANY: tuple[Api, ...] = (Api.NODEWRIGHT, Api.APPS)
_KINDS: dict[str, tuple[Api, ...]] = {
    "nds": (Api.NODEWRIGHT,),
    "daemonset.nodewright.dev": (Api.NODEWRIGHT,),
    "daemonsets.nodewright.dev": (Api.NODEWRIGHT,),
    "ds": (Api.APPS,),
    "daemonset.apps": (Api.APPS,),
    "daemonsets.apps": (Api.APPS,),
    "daemonset": _ANY,
    "daemonsets": _ANY,
}


class Target(NamedTuple):
    """What was asked for. Without a namespace, the kubeconfig's counts."""

    namespace: str
    name: str
    apis: tuple[Api, ...]


class Chosen(NamedTuple):
    """The DaemonSet that exists, and a client to the cluster that has it."""

    client: Client
    kind: Kind
    ds: DaemonSet

    @property
    def title(self) -> str:
        """As kubectl names objects: `daemonset.apps/NAME`."""
        return f"daemonset.{self.kind.resource.group}/{self.ds.metadata.name}"

    def refused(self, why: str, hint: str = "") -> CliError:
        """An error in kubectl's form."""
        return CliError(f'daemonsets.{self.kind.resource.group} "{self.ds.metadata.name}" {why}', hint)


def parse(words: list[str], namespace: str | None, api: Api | None) -> Target:
    """Read `KIND NAME`, `KIND/NAME`, `NAME`, each with or without a namespace before the name."""
    parts = [part for word in words for part in word.split("/")]
    apis = _ANY
    if len(parts) > 1 and parts[0].lower() in _KINDS:
        apis = _KINDS[parts.pop(0).lower()]
    elif len(words) > 1:
        known = ", ".join(_KINDS)
        raise CliError(f"cannot do that with a {words[0]}", f"known kinds: {known}", USAGE)
    if len(parts) > 2 or not all(parts):
        raise CliError(f"{' '.join(words)} is not [KIND/][NAMESPACE/]NAME", "nodewright rollout status nds/x", USAGE)
    *before, name = parts
    if before and namespace is not None and namespace != before[0]:
        raise CliError(f"two namespaces: {before[0]} and {namespace}", exit_code=USAGE)
    if api is not None:
        if api not in apis:
            raise CliError(f"{words[0]} is not of --api {api}", exit_code=USAGE)
        apis = (api,)
    return Target(before[0] if before else namespace or "", name, apis)


@asynccontextmanager
async def choose(config: Config, target: Target) -> AsyncIterator[Chosen]:
    """Find the DaemonSet; CliError where there is none, or where there are two."""
    from nodewright.controllers.daemonset.lookup import KINDS, find
    from nodewright.kube.client import Client

    kinds = [kind for kind in KINDS if kind.resource.api_version in target.apis]
    namespace = target.namespace or config.namespace
    async with Client(config, user_agent="nodewright-rollout") as client:
        found = await find(client, namespace, target.name, kinds)
        key = f"{namespace}/{target.name}"
        if not found:
            hint = "" if target.namespace else "give the namespace too: NAMESPACE/NAME"
            raise CliError(f"there is no DaemonSet {key} of {' or of '.join(target.apis)}", hint)
        if len(found) > 1:
            hint = " or ".join(f"--api {api}" for api in target.apis)
            raise CliError(f"there are two DaemonSets {key}: one of {' and one of '.join(target.apis)}", hint, USAGE)
        kind, ds = found[0]
        yield Chosen(client, kind, ds)
