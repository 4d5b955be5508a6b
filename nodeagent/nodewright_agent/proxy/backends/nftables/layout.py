"""The fixed part of our tables: sets, chains and the rules that tie them together.

    prerouting, output (dstnat - 10)   refuse:   source ranges, then no-endpoints  -> reject | drop
    prerouting, output (dstnat)        services: external-frontends (clients from outside, policy Local), then
                                                 frontends -> goto pick-N | pick-external-N | sticky-HASH
    pick-N                                       destination . random slot below N -> endpoints -> dnat
    prerouting, output (dstnat + 1)    learn:    which endpoint a client got, where its service has affinity
    forward, output (filter)                     undefined ports of ClusterIPs are refused
    postrouting (srcnat)                         translated -> jump masquerade-..., then hairpin

Services share everything: one element of `frontends` and one of `translated` for each address and port, one element of
`endpoints` for each slot. So a change costs as much as it changes, and the number of chains does not grow with the
number of services. No packet mark is used: what was translated is found again by the original destination that
conntrack remembers. `translated` counts new connections, and keeps counting while endpoints come and go.

Every rule is one that nft (1.0.6 and later) can print.
"""

from __future__ import annotations

import ipaddress

from nodewright_agent.proxy.backends.nftables import expr, wire
from nodewright_agent.proxy.backends.nftables.elements import add, encode_range
from nodewright_agent.proxy.backends.nftables.expr import R0, VERDICT
from nodewright_agent.proxy.backends.nftables.wire import Op, SetSpec
from nodewright_agent.proxy.model import Masquerade

TABLE = "nodewright-proxy"
COMMENT = "Kubernetes Services, kept by nodewright; changes by hand are undone"

_IPV4, _IPV6, _PROTO, _PORT, _MARK = 7, 8, 12, 13, 19

FRONTENDS = "frontends"
EXTERNAL_FRONTENDS = "external-frontends"
ENDPOINTS = "endpoints"
EXTERNAL_ENDPOINTS = "external-endpoints"
TRANSLATED = "translated"
NO_ENDPOINTS = "no-endpoints"
AFFINITY = "affinity"
EXTERNAL_AFFINITY = "external-affinity"
CLUSTER_IPS = "cluster-ips"
HAIRPIN = "hairpin"
RESTRICTED = "restricted"
SOURCE_RANGES = "source-ranges"
PODS = "pods"

REJECT, DROP = "reject-no-endpoints", "drop-no-local-endpoints"
MASQUERADE = {
    Masquerade.NEVER: "masquerade-never",
    Masquerade.OFF_CLUSTER: "masquerade-off-cluster",
    Masquerade.LOCAL_SOURCE: "masquerade-local-source",
    Masquerade.ALWAYS: "masquerade-always",
}


def sets(ipv6: bool) -> list[SetSpec]:
    """Give the sets of a table, but those for affinity that come and go."""
    length = 16 if ipv6 else 4
    address = _IPV6 if ipv6 else _IPV4
    place = (address, _PROTO, _PORT)
    place_length = length + 8
    slot, slot_length = (*place, _MARK), length + 12
    target, target_length = (address, _PORT), length + 4

    def verdicts(name: str, text: str, *, counter: bool = False) -> SetSpec:
        return SetSpec(name, place, place_length, verdict=True, counter=counter, text=text)

    def slots(name: str, text: str) -> SetSpec:
        return SetSpec(name, slot, slot_length, data_types=target, data_length=target_length, text=text)

    ranges = (length, 4, 4, length)
    return [
        verdicts(FRONTENDS, "service address . protocol . port"),
        verdicts(EXTERNAL_FRONTENDS, "policy Local, clients from outside"),
        slots(ENDPOINTS, "service address . protocol . port . slot"),
        slots(EXTERNAL_ENDPOINTS, "policy Local, clients from outside"),
        verdicts(TRANSLATED, "counts new connections; whose source is masqueraded", counter=True),
        verdicts(NO_ENDPOINTS, "services without a usable endpoint", counter=True),
        verdicts(AFFINITY, "services with ClientIP affinity"),
        verdicts(EXTERNAL_AFFINITY, "policy Local, clients from outside"),
        SetSpec(CLUSTER_IPS, (address,), length, text="undefined ports are refused"),
        SetSpec(HAIRPIN, (address, address), 2 * length, text="endpoints of this node, to themselves"),
        SetSpec(RESTRICTED, place, place_length, text="services with source ranges"),
        SetSpec(
            SOURCE_RANGES, (*place, address), place_length + length, interval_fields=ranges, text="who may connect"
        ),
        SetSpec(PODS, (address,), length, interval_fields=(length,), text="addresses inside of the cluster"),
    ]


def affinity_map(ipv6: bool, name: str, seconds: int, owner: str) -> SetSpec:
    """Give the map that remembers which endpoint each client of a service port got."""
    length = 16 if ipv6 else 4
    address = _IPV6 if ipv6 else _IPV4
    return SetSpec(
        name,
        (address,),
        length,
        data_types=(address, _PORT),
        data_length=length + 4,
        timeout=seconds * 1000,
        size=65_535,
        text=owner,
    )


class Layout:
    """The fixed part for one family."""

    def __init__(self, *, ipv6: bool, pod_cidrs: tuple[str, ...]) -> None:
        """`pod_cidrs` of both families; those of this one are used."""
        self.ipv6 = ipv6
        self.family = wire.NFPROTO_IPV6 if ipv6 else wire.NFPROTO_IPV4
        self.length = 16 if ipv6 else 4
        networks = [ipaddress.ip_network(text, strict=False) for text in pod_cidrs]
        self.networks = [network for network in networks if (network.version == 6) == ipv6]

    def ops(self) -> list[Op]:
        """Give what makes the table from nothing; in one transaction it replaces the one that is there."""
        table = wire.new_table(self.family, TABLE, COMMENT)
        return [
            table,  # deleting needs one that exists
            wire.delete_table(self.family, TABLE),
            table,
            *(wire.new_set(self.family, TABLE, spec, number) for number, spec in enumerate(sets(self.ipv6), 1)),
            *self._pods(),
            *self._masquerade_chains(),
            *self._refusal_chains(),
            *self._service_chains(),
            *self._base_chains(),
        ]

    def remove(self) -> list[Op]:
        """Give what leaves nothing of ours."""
        return [wire.new_table(self.family, TABLE, COMMENT), wire.delete_table(self.family, TABLE)]

    def pick(self, name: str, endpoints: str, count: int) -> list[Op]:
        """Give the chain that spreads connections over so many slots of a map."""
        index = R0 + self.length // 4 + 2
        return [
            self._chain(name),
            self._rule(
                name,
                expr.destination(R0, self.length),
                expr.random_slot(index, count),
                expr.lookup(endpoints, R0, R0),
                expr.dnat(self.family, R0, R0 + self.length // 4),
            ),
        ]

    def sticky_rules(self, name: str, memory: str, pick: str) -> list[Op]:
        """Give the rules that send a client where it was before, else anywhere."""
        return [
            self._rule(
                name,
                expr.source_address(R0, self.length),
                expr.lookup(memory, R0, R0),
                expr.dnat(self.family, R0, R0 + self.length // 4),
                text="known client",
            ),
            self._rule(name, expr.goto(pick), text="new client"),
        ]

    def learn_rule(self, name: str, memory: str, seconds: int) -> Op:
        """Give the rule that remembers where a client was sent, once that is decided."""
        data = R0 + max(4, self.length // 4)  # each concatenation begins at a whole 128-bit register
        return self._rule(
            name,
            expr.source_address(R0, self.length),
            expr.destination_address(data, self.length),
            expr.destination_port(data + self.length // 4),
            expr.remember(memory, R0, data, seconds * 1000),
        )

    def _chain(self, name: str, text: str = "") -> Op:
        return wire.new_chain(self.family, TABLE, name, text)

    def _rule(self, chain: str, *expressions: bytes, text: str = "") -> Op:
        return wire.new_rule(self.family, TABLE, chain, *expressions, text=text)

    def _pods(self) -> list[Op]:
        encoded: list[bytes] = []
        for network in self.networks:
            end = int(network.broadcast_address) + 1
            last = end.to_bytes(self.length, "big") if end < 1 << self.length * 8 else None
            encoded += encode_range(network.network_address.packed, last)
        return list(add(self.family, TABLE, PODS, encoded))

    def _masquerade_chains(self) -> list[Op]:
        never, off_cluster, local, always = (MASQUERADE[kind] for kind in Masquerade)
        source = expr.source_address(R0, self.length)
        return [
            *(self._chain(name) for name in MASQUERADE.values()),
            self._rule(never, expr.counter()),
            self._rule(off_cluster, source, expr.lookup(PODS, R0, absent=True), expr.counter(), expr.masquerade()),
            self._rule(local, expr.source_is_local(), expr.counter(), expr.masquerade()),
            self._rule(always, expr.counter(), expr.masquerade()),
        ]

    def _refusal_chains(self) -> list[Op]:
        place = expr.destination(R0, self.length)
        source = expr.source_address(R0 + self.length // 4 + 2, self.length)
        new = expr.ct_state(expr.CT_STATE_NEW)
        return [
            self._chain(REJECT),
            self._rule(REJECT, expr.counter(), expr.reject_unreachable(self.ipv6)),
            self._chain(DROP),
            self._rule(DROP, expr.counter(), expr.drop()),
            self._chain("refuse"),
            self._rule(
                "refuse",
                new,
                place,
                expr.lookup(RESTRICTED, R0),
                place,
                source,
                expr.lookup(SOURCE_RANGES, R0, absent=True),
                expr.counter(),
                expr.drop(),
                text="loadBalancerSourceRanges",
            ),
            self._rule("refuse", new, place, expr.lookup(NO_ENDPOINTS, R0, VERDICT)),
        ]

    def _from_outside(self) -> bytes:
        source = expr.source_address(R0, self.length)
        return source + expr.lookup(PODS, R0, absent=True) + expr.source_is_local(negate=True)

    def _service_chains(self) -> list[Op]:
        place = expr.destination(R0, self.length)
        original = expr.original_destination(R0, self.length)
        decided = expr.ct_state(expr.CT_STATE_NEW) + expr.ct_translated()
        outside = self._from_outside()
        return [
            self._chain("services"),
            self._rule("services", outside, place, expr.lookup(EXTERNAL_FRONTENDS, R0, VERDICT)),
            self._rule("services", place, expr.lookup(FRONTENDS, R0, VERDICT)),
            self._chain("learn"),
            self._rule("learn", decided, outside, original, expr.lookup(EXTERNAL_AFFINITY, R0, VERDICT)),
            self._rule("learn", decided, original, expr.lookup(AFFINITY, R0, VERDICT)),
        ]

    def _base_chains(self) -> list[Op]:
        def base(name: str, kind: str, hook: int, priority: int, *rules: Op) -> list[Op]:
            return [wire.new_base_chain(self.family, TABLE, name, kind, hook, priority), *rules]

        undefined = (
            expr.ct_state(expr.CT_STATE_NEW)
            + expr.destination_address(R0, self.length)
            + expr.lookup(CLUSTER_IPS, R0)
            + expr.counter()
            + expr.reject_unreachable(self.ipv6)
        )
        original = expr.ct_translated() + expr.original_destination(R0, self.length)
        hairpin = (
            expr.ct_translated()
            + expr.source_address(R0, self.length)
            + expr.destination_address(R0 + self.length // 4, self.length)
            + expr.lookup(HAIRPIN, R0)
            + expr.counter()
            + expr.masquerade()
        )
        invalid = expr.ct_state(expr.CT_STATE_INVALID) + expr.counter() + expr.drop()
        ops: list[Op] = []
        for hook, where in ((wire.HOOK_PREROUTING, "prerouting"), (wire.HOOK_OUTPUT, "output")):
            for name, kind, priority, chain in (
                (f"refuse-{where}", "filter", -110, "refuse"),
                (f"nat-{where}", "nat", -100, "services"),
                (f"learn-{where}", "filter", -99, "learn"),
            ):
                ops += base(name, kind, hook, priority, self._rule(name, expr.jump(chain)))
        forward, output, post = "filter-forward", "filter-output", "nat-postrouting"
        return [
            *ops,
            *base(
                forward,
                "filter",
                wire.HOOK_FORWARD,
                0,
                self._rule(forward, invalid, text="late packets must not reach clients untranslated"),
                self._rule(forward, undefined, text="undefined port of a ClusterIP"),
            ),
            *base(output, "filter", wire.HOOK_OUTPUT, 0, self._rule(output, undefined)),
            *base(
                post,
                "nat",
                wire.HOOK_POSTROUTING,
                100,
                self._rule(post, original, expr.lookup(TRANSLATED, R0, VERDICT)),
                self._rule(post, hairpin, text="hairpin"),
            ),
        ]
