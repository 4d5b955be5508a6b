"""Tables for the pure parts: back-off, restart policy, phase, conditions, files, resources, admission, messages."""

import msgspec
import pytest

from nodewright.kube.objects import ContainerStatus, PodStatus
from nodewright_agent.pods import endmessage, files, resources
from nodewright_agent.pods.admission import admit
from nodewright_agent.pods.backoff import BackoffPolicy, advance, blocked_until, format_duration
from nodewright_agent.pods.model import Backoff
from nodewright_agent.pods.phase import phase
from nodewright_agent.pods.probes.counting import Counter
from nodewright_agent.pods.restart import restarts_after
from nodewright_agent.pods.status_patch import status_patch
from unit.pods.pod_doubles import make_pod

POLICY = BackoffPolicy(10, 300)


def test_backoff_doubles_to_the_maximum_and_expires():
    entry, now, delays = None, 1000.0, []
    for _ in range(8):
        entry = advance(entry, now, now, POLICY)
        delays.append(entry.delay)
        now += entry.delay
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    assert blocked_until(entry, now, now + 299, POLICY) == now + 300
    assert blocked_until(entry, now, now + 300, POLICY) is None
    assert blocked_until(entry, now + 601, now + 602, POLICY) is None
    assert advance(entry, entry.updated_at + 601, now, POLICY) == Backoff(10, now)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(10, "10s"), (160, "2m40s"), (300, "5m0s"), (3600, "1h0m0s"), (1.5, "1.5s"), (0.012, "12ms"), (0, "0s")],
)
def test_durations_as_go_writes_them(seconds, text):
    assert format_duration(seconds) == text


RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}


@pytest.mark.parametrize(
    ("pod_policy", "container", "code", "init", "expected"),
    [
        ("Always", {}, 0, False, True),
        ("OnFailure", {}, 0, False, False),
        ("OnFailure", {}, 1, False, True),
        ("Never", {}, 1, False, False),
        ("Always", {}, 0, True, False),
        ("Always", {}, 1, True, True),
        ("Never", {}, 1, True, False),
        ("Never", {"restartPolicy": "Always"}, 0, True, True),
        ("Always", {"restartPolicy": "Never"}, 1, False, False),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [RULE]}, 42, False, True),
        ("Never", {"restartPolicy": "Never", "restartPolicyRules": [RULE]}, 41, False, False),
    ],
)
def test_restart_rules(pod_policy, container, code, init, expected):
    pod = make_pod({"name": "a", **container}, policy=pod_policy)
    assert restarts_after(pod, pod.spec.containers[0], code, init=init) is expected


RUN = {"running": {}}
WAIT = {"waiting": {"reason": "X"}}
OK, BAD = {"terminated": {"exitCode": 0}}, {"terminated": {"exitCode": 1}}


def statuses(**given):
    """`a=RUN`, or `a=(WAIT, BAD)` for a state and the last state."""
    found = {}
    for name, value in given.items():
        state, last = value if isinstance(value, tuple) else (value, {})
        body = {"name": name, "ready": False, "restartCount": 0, "image": "", "imageID": "", "started": state == RUN}
        found[name] = msgspec.convert({**body, "state": state, "lastState": last}, ContainerStatus)
    return found


@pytest.mark.parametrize(
    ("policy", "given", "terminal", "expected"),
    [
        ("Always", {}, False, "Pending"),
        ("Always", {"a": WAIT, "b": WAIT}, False, "Pending"),
        ("Always", {"a": RUN, "b": WAIT}, False, "Pending"),
        ("Always", {"a": RUN, "b": RUN}, False, "Running"),
        ("Always", {"a": RUN, "b": (WAIT, BAD)}, False, "Running"),
        ("Always", {"a": OK, "b": OK}, False, "Running"),
        ("Always", {"a": OK, "b": OK}, True, "Succeeded"),
        ("Always", {"a": OK, "b": BAD}, True, "Failed"),
        ("OnFailure", {"a": OK, "b": BAD}, False, "Running"),
        ("OnFailure", {"a": OK, "b": OK}, False, "Succeeded"),
        ("Never", {"a": OK, "b": BAD}, False, "Failed"),
        ("Never", {"a": OK, "b": RUN}, False, "Running"),
    ],
)
def test_phase_of_main_containers(policy, given, terminal, expected):
    pod = make_pod({"name": "a"}, {"name": "b"}, policy=policy)
    assert phase(pod, statuses(**given), terminal=terminal, initialised=True) == expected


@pytest.mark.parametrize(
    ("policy", "given", "expected"),
    [
        ("Always", {"i": RUN, "a": WAIT}, "Pending"),
        ("Always", {"i": BAD, "a": WAIT}, "Pending"),
        ("Never", {"i": BAD, "a": WAIT}, "Failed"),
        ("Never", {"i": OK, "a": RUN}, "Running"),
    ],
)
def test_phase_with_init_containers(policy, given, expected):
    pod = make_pod(init=[{"name": "i"}], policy=policy)
    assert phase(pod, statuses(**given), terminal=False, initialised=False) == expected


def test_a_restarting_sidecar_does_not_make_a_running_pod_pending():
    pod = make_pod(init=[{"name": "s", "restartPolicy": "Always"}])
    given = statuses(s=RUN, a=RUN)
    given["s"].started = False
    assert phase(pod, given, terminal=False, initialised=False) == "Pending"
    assert phase(pod, given, terminal=False, initialised=True) == "Running"


def test_managed_hosts_file():
    pod = make_pod(hostAliases=[{"ip": "192.0.2.9", "hostnames": ["x", "y"]}], subdomain="sub", hostname="h")
    name, domain = files.hostname_and_domain(pod, "cluster.local")
    text = files.hosts_text(["10.0.0.5"], name, domain, pod.spec.host_aliases)
    assert text == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.0.0.5\th.sub.ns.svc.cluster.local\th\n"
        "\n"
        "# Entries added by HostAliases.\n"
        "192.0.2.9\tx\ty\n"
    )
    assert files.host_network_hosts_text("1.2.3.4 n\n", []) == (
        "# Kubernetes-managed hosts file (host network).\n1.2.3.4 n\n"
    )


def test_long_host_names():
    pod = make_pod(name="n" * 62 + "-tail")
    assert files.hostname_and_domain(pod, "cluster.local") == ("n" * 62, "")
    fqdn = make_pod(name="n" * 60, subdomain="sub", setHostnameAsFQDN=True)
    with pytest.raises(ValueError, match="is too long"):
        files.kernel_hostname(fqdn, "cluster.local", "node")


HOST = files.parse_resolv_conf(
    "# c\nnameserver 192.0.2.1\nsearch old.\nsearch corp.example.\noptions ndots:2 timeout:3\n"
)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {},
            "search ns.svc.c svc.c c corp.example\nnameserver 10.96.0.10\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "search corp.example\nnameserver 192.0.2.1\noptions ndots:2 timeout:3\n"),
        (
            {"hostNetwork": True},
            "search corp.example\nnameserver 192.0.2.1\noptions ndots:2 timeout:3\n",
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["s"],
                    "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
                },
            },
            "search s\nnameserver 1.1.1.1\noptions ndots:1 edns0\n",
        ),
    ],
)
def test_resolv_conf(spec, text):
    assert files.pod_dns(make_pod(**spec), HOST, ["10.96.0.10"], "c").text() == text


def test_resolv_conf_limits_are_told():
    notes: list[files.Note] = []
    config = {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}
    dns = files.pod_dns(make_pod(dnsPolicy="None", dnsConfig=config), HOST, [], "c", notes)
    assert len(dns.servers) == 3
    assert notes[0][0] == "DNSConfigForming"
    assert notes[0][1].startswith("Nameserver limits were exceeded")
    files.pod_dns(make_pod(), HOST, [], "c", notes)
    assert notes[1][0] == "MissingClusterDNS"
    assert "does not have ClusterDNS IP configured" in notes[1][1]


def with_resources(requests=None, limits=None, **more):
    return {"name": "a", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def with_sysctl(name):
    return make_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]})


def test_requests_of_a_pod_count_sidecars_and_the_largest_init_container():
    small, big = {"cpu": "100m"}, {"cpu": "2"}
    inits = [{**with_resources(small), "name": "s", "restartPolicy": "Always"}, {**with_resources(big), "name": "i"}]
    pod = make_pod(with_resources({"cpu": "500m"}), init=inits)
    assert resources.pod_request(pod, resources.milli_cpu) == 2100
    assert resources.pod_request(make_pod(with_resources({"cpu": "3"}), init=inits), resources.milli_cpu) == 3100


def test_pod_limits_need_a_limit_of_every_container():
    both = make_pod(
        with_resources(limits={"memory": "1Mi", "cpu": "1"}), {**with_resources(limits={"memory": "2Mi"}), "name": "b"}
    )
    assert resources.pod_limits(both).memory == 3 << 20
    assert resources.pod_limits(both).cpu_quota is None
    assert resources.pod_limits(make_pod()).cpu_shares == 2


ALLOCATABLE = {"cpu": "2", "memory": "1Gi", "pods": "2"}


@pytest.mark.parametrize(
    ("pod", "others", "reason"),
    [
        (make_pod(), [], None),
        (make_pod(), [make_pod(uid="1"), make_pod(uid="2")], "OutOfpods"),
        (make_pod(with_resources({"cpu": "1500m"})), [make_pod(with_resources({"cpu": "501m"}))], "OutOfcpu"),
        (make_pod(with_resources({"cpu": "1500m"})), [make_pod(with_resources({"cpu": "500m"}))], None),
        (make_pod(with_resources({"memory": "1025Mi"})), [], "OutOfmemory"),
        (make_pod(nodeSelector={"disk": "ssd"}), [], "NodeAffinity"),
        (make_pod(nodeSelector={"zone": "z"}), [], None),
        (make_pod(os={"name": "windows"}), [], "PodOSNotSupported"),
        (with_sysctl("net.ipv4.tcp_syncookies"), [], None),
        (with_sysctl("net/ipv4/tcp_syncookies"), [], None),
        (with_sysctl("net.core.somaxconn"), [], "SysctlForbidden"),
        (with_sysctl("kernel.msgmax"), [], None),
    ],
)
def test_admission(pod, others, reason):
    refusal = admit(pod, others, ALLOCATABLE, {"zone": "z"}, "node", ["kernel.msg*"])
    assert (refusal[0] if refusal else None) == reason


def test_probe_thresholds():
    counter = Counter(2, 3)
    assert [counter.take(ok) for ok in (True, False, True, True)] == [None, None, None, True]
    assert [counter.take(ok) for ok in (False, False, False)] == [None, None, False]


def test_end_of_a_log_as_termination_message():
    time = "2024-01-01T00:00:00Z"
    log = f"tail of a line\n{time} stdout F one\n{time} stderr P two \n{time} stderr F three\n"
    assert endmessage.log_end(log) == "one\ntwo three\n"
    assert endmessage.log_end(f"{time} stdout F only\n") == "only\n"
    assert endmessage.log_end(f"{time} stdout F one\n{time} stdout P DONE\n") == "one\nDONE"
    many = "".join(f"{time} stdout F {n}\n" for n in range(200))
    assert endmessage.log_end(many).splitlines()[0] == "120"


def test_termination_message_file_is_not_followed_elsewhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert endmessage.read(link, tmp_path / "no-log", None, 1) == ""
    assert endmessage.read(secret, tmp_path / "no-log", None, 1) == "secret"


def test_patch_has_only_what_differs():
    old = msgspec.convert(
        {
            "phase": "Pending",
            "conditions": [{"type": "Ready", "status": "False", "reason": "X"}, {"type": "own", "status": "True"}],
        },
        PodStatus,
    )
    new = msgspec.convert(
        {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
        PodStatus,
    )
    patch = status_patch(old, new)
    assert patch is not None
    ready = patch.pop("conditions")
    assert patch == {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    assert [(c["type"], c["status"], c["reason"]) for c in ready] == [("Ready", "True", None)]
    assert status_patch(new, new) is None
    moved = msgspec.structs.replace(new, pod_ip="10.0.0.2", pod_ips=[type(new.pod_ips[0])("10.0.0.2")])
    assert status_patch(new, moved) == {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]}
    gone = msgspec.structs.replace(new, reason="")
    assert status_patch(msgspec.structs.replace(new, reason="Evicted"), gone) == {"reason": None}
