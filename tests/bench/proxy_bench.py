"""How fast Services get into the kernel: everything at once, then one change.

    unshare -n .venv/bin/python tests/bench/proxy_bench.py [--services 5000] [--endpoints 10] [--rounds 3] [-o json]

Measures the whole way from objects to rules: decoding of the API server's JSON, the table, netlink. Run it in a network
namespace of its own (it makes one where it can). kube-proxy 1.36.3 with 5000 x 10 on a 2-core machine took 2.97 s for
the first sync and about 1.1 s for one more Service in nftables mode, in 283 MB.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import sys
import time
from typing import Any

import msgspec

from nodewright_agent.proxy.backends.base import BackendOptions
from nodewright_agent.proxy.backends.nftables.backend import NftablesBackend
from nodewright_agent.proxy.objects import EndpointSlice, Service
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.table import TableBuilder

_CLONE_NEWNET = 0x40000000
PODS = ("10.128.0.0/9",)
KUBE_PROXY = {"services": 5000, "endpoints": 10, "full": 2.97, "one": 1.1}
"""kube-proxy 1.36.3, nftables mode, measured apart."""


def service_json(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"service-{number}", "namespace": "default", "uid": f"{number:036}", "labels": {"a": "b"}},
        "spec": {
            "clusterIP": f"10.96.{number >> 8}.{number & 255}",
            "clusterIPs": [f"10.96.{number >> 8}.{number & 255}"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": f"service-{number}"},
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def slice_json(number: int, endpoints: int, shift: int = 0) -> dict[str, Any]:
    def one(index: int) -> dict[str, Any]:
        host = 0x0A800000 + number * endpoints + index + (shift if index == 0 else 0)
        return {
            "addresses": [".".join(str(part) for part in host.to_bytes(4, "big"))],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{index}",
            "targetRef": {"kind": "Pod", "name": f"service-{number}-{index}", "namespace": "default"},
        }

    name = f"service-{number}"
    return {
        "metadata": {"name": f"{name}-x", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [one(index) for index in range(endpoints)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def run(services: int, endpoints: int) -> dict[str, float]:
    documents = [msgspec.json.encode(service_json(number)) for number in range(services)]
    slices = [msgspec.json.encode(slice_json(number, endpoints)) for number in range(services)]
    backend = NftablesBackend(BackendOptions(PODS))
    backend.open()
    try:
        service_decoder, slice_decoder = msgspec.json.Decoder(Service), msgspec.json.Decoder(EndpointSlice)
        began = time.perf_counter()
        decoded = [service_decoder.decode(item) for item in documents]
        decoded_slices = [slice_decoder.decode(item) for item in slices]
        read = time.perf_counter()
        builder = TableBuilder(NodeView("node-3", pod_cidrs=PODS))
        for item in decoded:
            builder.set_service(item.key, item)
        for piece in decoded_slices:
            builder.set_slice(piece.key, None, piece)
        builder.take()
        computed = time.perf_counter()
        backend.replace(builder.table())
        done = time.perf_counter()
        changes = []
        for round_ in range(20):
            number = services * round_ // 20
            old = decoded_slices[number]
            data = msgspec.json.encode(slice_json(number, endpoints, shift=0x100000))
            start = time.perf_counter()
            builder.set_slice(old.key, old, slice_decoder.decode(data))
            backend.apply(builder.take())
            changes.append(time.perf_counter() - start)
        start = time.perf_counter()
        fresh = service_decoder.decode(msgspec.json.encode(service_json(services)))
        builder.set_service(fresh.key, fresh)
        backend.apply(builder.take())
        added = time.perf_counter() - start
        assert backend.verify() == []
    finally:
        backend.cleanup()
        backend.close()
    return {
        "decode": read - began,
        "table": computed - read,
        "kernel": done - computed,
        "full": done - began,
        "endpoint": statistics.median(changes),
        "service": added,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        sys.exit(f"no network namespace of its own: {os.strerror(ctypes.get_errno())} (run it as root)")
    rounds = [run(options.services, options.endpoints) for _ in range(options.rounds)]
    figures = {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}
    figures["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.output == "json":
        print(json.dumps({"services": options.services, "endpoints": options.endpoints, **figures}))
        return
    print(f"{options.services} services x {options.endpoints} endpoints, nftables, median of {options.rounds}")
    for name, text in (
        ("full", "all at once, objects to rules"),
        ("decode", "  JSON to objects"),
        ("table", "  objects to table"),
        ("kernel", "  table to kernel"),
        ("endpoint", "one endpoint replaced"),
        ("service", "one service added"),
    ):
        print(f"  {text:32} {figures[name] * 1000:10.2f} ms")
    print(f"  {'peak memory, inputs included':32} {figures['rss_mib']:10.0f} MiB")
    if (options.services, options.endpoints) == (KUBE_PROXY["services"], KUBE_PROXY["endpoints"]):
        full, one = KUBE_PROXY["full"] / figures["full"], KUBE_PROXY["one"] / figures["service"]
        print(
            f"  kube-proxy 1.36.3: {KUBE_PROXY['full']} s, {KUBE_PROXY['one']} s: {full:.1f} and {one:.0f} times ours"
        )


if __name__ == "__main__":
    main()
