"""Review of NodeAgentConfigs: nothing is refused that the schema takes, but contradictions are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodewright.controllers.admission.fields import Json, child, entries
from nodewright.controllers.admission.labels import check_selector
from nodewright.framework.webhook.review import Answer, Request
from nodewright.kube.api.meta import LabelSelectorRequirement, requirement_matches
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import NODEAGENTCONFIGS

_NOT_SETTINGS = frozenset({"nodeSelector", "priority"})
_UNNAMED = " "  # no label has this value


class NodeAgentConfigReviewer:
    """Looks at the other objects of the kind; they are few."""

    def __init__(self, client: Client) -> None:
        """`client` needs the right to list NodeAgentConfigs."""
        self._client = client

    async def __call__(self, request: Request) -> Answer:
        """Review a creation or a change."""
        new = request.new()
        causes = tuple(check_selector(child(new, "spec", "nodeSelector"), "spec.nodeSelector"))
        try:
            others = (await self._client.list(NODEAGENTCONFIGS, type=dict)).items
        except ApiError as error:
            return Answer(causes, (f"could not look for other NodeAgentConfigs: {error}",))
        return Answer(causes, tuple(overlaps(new, others)))


def overlaps(new: Json, others: Iterable[Json]) -> list[str]:
    """Warnings about other objects of the same priority that set the same fields, maybe for the same nodes. Pure.

    Between them the older one wins, then the first by name: legal, and hardly what anyone has in mind.
    """
    spec, own = child(new, "spec"), child(new, "metadata").get("name")
    mine = dict(_settings(spec))
    warnings: list[str] = []
    for other in sorted(others, key=lambda o: str(child(o, "metadata").get("name"))):
        theirs, name = child(other, "spec"), child(other, "metadata").get("name")
        if name == own or (spec.get("priority") or 0) != (theirs.get("priority") or 0):
            continue
        fields = sorted(path for path, value in _settings(theirs) if path in mine and mine[path] != value)
        if fields and may_overlap(child(spec, "nodeSelector"), child(theirs, "nodeSelector")):
            warnings.append(
                f"NodeAgentConfig {name!r} has the same priority, may select the same nodes and sets "
                f"{', '.join(fields)} to something else; the older object wins"
            )
    return warnings


def may_overlap(one: Json, other: Json) -> bool:
    """Whether there can be a node that matches both selectors.

    Requirements of different keys cannot contradict each other. For one key it is enough to try the values that are
    named, one that is not, and none.
    """
    by_key: dict[str, list[LabelSelectorRequirement]] = {}
    for requirement in (*_requirements(one), *_requirements(other)):
        by_key.setdefault(requirement.key, []).append(requirement)
    for key, wanted in by_key.items():
        named = {value for requirement in wanted for value in requirement.values}
        candidates: list[dict[str, str]] = [{}, {key: _UNNAMED}, *({key: value} for value in named)]
        if not any(all(requirement_matches(r, labels) for r in wanted) for labels in candidates):
            return False
    return True


def _requirements(selector: Json) -> Iterator[LabelSelectorRequirement]:
    for key, value in child(selector, "matchLabels").items():
        yield LabelSelectorRequirement(key=key, operator="In", values=[value])
    for _, item in entries(selector, "matchExpressions", ""):
        yield LabelSelectorRequirement(
            key=str(item.get("key")), operator=str(item.get("operator")), values=item.get("values") or []
        )


def _settings(spec: Json, prefix: str = "spec") -> Iterator[tuple[str, object]]:
    """Paths of all settings and their values."""
    for name, value in spec.items():
        if prefix == "spec" and name in _NOT_SETTINGS:
            continue
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value
