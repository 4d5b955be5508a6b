"""kubectl exec, attach, run, cp, debug and port-forward against real containers, over WebSocket and SPDY."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
import websocket
from kubernetes.stream import stream

from nodewright_agent.runtime import processes
from support.agent_node import IMAGE, wait_until
from support.kubectl_sessions import Kubectl, through
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.timeout(180)]

ATTACHABLE = {"stdin": True, "stdinOnce": True}


def sleepers(seconds: int) -> list[int]:
    """Processes that sleep so long."""
    return [pid for pid in processes.all_pids() if processes.command_line(pid) == ["sleep", str(seconds)]]


@pytest.fixture
def kubectl(stream_lab: PodLab, kubectl_binary) -> Kubectl:
    return Kubectl(kubectl_binary, stream_lab)


def test_output_and_exit_code(sessions: Kubectl):
    found = sessions.run("exec", "p", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (found.returncode, found.stdout) == (7, b"out\n")
    assert found.stderr == b"err\ncommand terminated with exit code 7\n"


def test_the_node_takes_websockets_from_the_api_server(stream_lab: PodLab):
    """It says so, and so the API server hands them on as they are."""
    node = stream_lab.api.read_node(stream_lab.node.name)
    assert "ExtendWebSocketsToKubelet" in (node.status.declared_features or [])


def test_what_cannot_run(sessions: Kubectl):
    found = sessions.run("exec", "p", "-c", "main", "--", "nosuch")
    assert found.returncode == 1
    assert b'error executing command in container: exec failed: unable to start container process: exec: "nosuch"' in (
        found.stderr
    )


def test_megabytes_of_input(sessions: Kubectl):
    data = os.urandom(8 << 20)
    assert sessions.output("exec", "-i", "p", "-c", "main", "--", "cat", stdin=data) == data


def test_a_command_has_what_its_container_has(kubectl: Kubectl):
    script = (
        "for p in 1 self; do "
        "cat /proc/$p/cgroup /proc/$p/oom_score_adj; grep -E '^(Cap|Sec|NoNew)' /proc/$p/status; done"
    )
    lines = kubectl.output("exec", "p", "-c", "user", "--", "sh", "-c", script).decode().splitlines()
    assert len(lines) > 10
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    found = kubectl.output("exec", "p", "-c", "user", "--", "sh", "-c", "id -u; id -g; pwd; echo $GREETING; echo $TERM")
    assert found.decode().split() == ["1234", "55", "/tmp", "hello"]


def test_a_terminal(sessions: Kubectl):
    with sessions.terminal("exec", "-it", "p", "-c", "main", "--", "sh", size=(100, 30)) as terminal:
        terminal.type("stty size; echo $TERM; tty\n")
        terminal.expect(r"30 100\s+xterm\s+/dev/pts/\d")
        terminal.resize(77, 22)

        def resized() -> bool:
            terminal.type("stty size; echo .\n")
            return terminal.expect(r"(\d+ \d+)\s+\.\s")[1] == "22 77"

        wait_until("the terminal has the new size", resized)
        terminal.type("sleep 71234567\n")
        wait_until("the command runs", lambda: sleepers(71234567))
        terminal.type("\x03")  # ^C
        terminal.expect(r"# ")
        terminal.type("exit 5\n")
        assert terminal.code() == 5


@pytest.mark.parametrize("way", ["interrupted", "killed"])
def test_a_command_ends_with_its_client(sessions: Kubectl, way: str):
    with sessions.started("exec", "p", "-c", "main", "--", "sleep", "71234568") as process:
        wait_until("the command runs", lambda: sleepers(71234568))
        process.send_signal(signal.SIGINT if way == "interrupted" else signal.SIGKILL)
        wait_until("the command has been killed", lambda: not sleepers(71234568))


def test_what_runs_in_a_terminal_ends_with_its_client(kubectl: Kubectl):
    with kubectl.terminal("exec", "-it", "p", "-c", "main", "--", "sh") as terminal:
        terminal.type("sleep 71234570\n")
        wait_until("the command runs", lambda: sleepers(71234570))
    wait_until("the command was told of the terminal's end", lambda: not sleepers(71234570))


def test_files(kubectl: Kubectl, tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "there").write_bytes(data)
    kubectl.output("cp", "-c", "main", str(tmp_path / "there"), "p:/tmp/copied")
    kubectl.output("cp", "-c", "main", "p:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def run(kubectl: Kubectl, name: str, *words: str) -> list[str]:
    """kubectl run's words for a Pod on the node under test."""
    overrides = f'{{"spec":{{"nodeName":"{kubectl.lab.node.name}","automountServiceAccountToken":false}}}}'
    policy = ["--restart=Never", "--image-pull-policy=IfNotPresent", f"--overrides={overrides}"]
    return ["run", name, f"--image={IMAGE}", *policy, "--quiet", *words]


def test_run_with_input(sessions: Kubectl, request: pytest.FixtureRequest):
    name = f"run-{request.node.callspec.id}"
    script = "sleep 1; cat; echo end; exit 3"
    found = sessions.run(*run(sessions, name, "-i", "--rm"), "--", "sh", "-c", script, stdin=b"hello\n")
    assert (found.returncode, found.stdout) == (3, b"hello\nend\n")


def test_run_with_a_terminal(sessions: Kubectl, request: pytest.FixtureRequest):
    with sessions.terminal(*run(sessions, f"tty-{request.node.callspec.id}", "-it", "--rm"), "--", "sh") as terminal:
        # kubectl gives one more of both first, so that something changes.
        terminal.type("until stty size | grep -q '30 100'; do sleep 0.1; done; stty size; echo $TERM\n")
        terminal.expect(r"30 100\s+xterm")
        terminal.type("exit 6\n")
        assert terminal.code() == 6


def serves(kubectl: Kubectl) -> bool:
    return kubectl.run("exec", "p", "-c", "main", "--", "true").returncode == 0


def test_attaching_again_and_after_a_restart_of_the_agent(stream_lab: PodLab, kubectl: Kubectl):
    stream_lab.create("open", ["sh", "-c", "while read word; do echo got $word; done"], container={"stdin": True})
    stream_lab.wait_phase("open", "Running")
    for word in ("one", "two"):
        with kubectl.started("attach", "-i", "open") as process:
            say(process, word)
    stream_lab.node.stop()
    stream_lab.node.start()
    wait_until("the agent serves again", lambda: serves(kubectl))
    with kubectl.started("attach", "-i", "open") as process:
        say(process, "three")
    assert stream_lab.logs("open") == "got one\ngot two\ngot three\n"


def say(process: subprocess.Popen[bytes], word: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n".encode())
    process.stdin.flush()
    while (line := process.stdout.readline()) != f"got {word}\n".encode():
        assert line, "the attachment has ended"


def test_the_input_of_stdin_once_ends_with_its_client(stream_lab: PodLab, kubectl: Kubectl):
    stream_lab.create(
        "once", ["sh", "-c", "echo go; cat; echo end; exit 4"], container=ATTACHABLE, restartPolicy="Never"
    )
    stream_lab.wait_phase("once", "Running")
    with kubectl.started("attach", "once"):  # gives no input, so that none ends with it
        wait_until("the agent is attached", lambda: attachments(stream_lab) > 0)
    wait_until("the client is gone", lambda: attachments(stream_lab) == 0)
    with kubectl.started("attach", "-i", "once") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"input\n")
        process.stdin.close()
        assert b"input\nend\n" in process.stdout.read()
        process.stdin = None
    pod = stream_lab.wait_phase("once", "Failed")
    assert pod.status.container_statuses[0].state.terminated.exit_code == 4


def attachments(lab: PodLab) -> int:
    """Connections of clients to the agent's API, but for the API server's idle ones: those that are upgraded."""
    found = subprocess.run(
        ["ss", "-Htno", "state", "established", f"( sport = :{lab.node.settings['port']} )"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sum(timer(line) < 16 for line in found.splitlines())


def timer(line: str) -> float:
    """Seconds until the next keep-alive probe: at most 15 with a session's settings, hours otherwise."""
    text = line.rpartition("keepalive,")[2].partition(",")[0]
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    return float(text[:-3]) if text.endswith("sec") and "min" not in text else 1e9


def test_other_clients(stream_lab: PodLab):
    """The official client speaks v4; conformance's the first version, others its base64 one."""
    call = stream_lab.api.connect_get_namespaced_pod_exec
    command = ["sh", "-c", "cat; echo err >&2; exit 3"]
    made = stream(call, "p", stream_lab.namespace, container="main", command=command, stdin=True, stdout=True,
                  stderr=True, tty=False, _preload_content=False)  # fmt: skip
    made.write_stdin("hello\n")
    while made.is_open() and not made.peek_stdout():
        made.update(timeout=1)
    assert made.read_stdout() == "hello\n"
    made.close()
    path = f"/api/v1/namespaces/{stream_lab.namespace}/pods/p/exec?container=main&stdout=1&command=echo&command=hello"
    access = stream_lab.api.api_client.configuration
    options = {"ca_certs": access.ssl_ca_cert, "certfile": access.cert_file, "keyfile": access.key_file}
    for protocol, wanted in (("channel.k8s.io", b"\1hello\n"), ("base64.channel.k8s.io", b"1aGVsbG8K")):
        url = access.host.replace("https", "wss") + path
        client = websocket.create_connection(url, sslopt=options, subprotocols=[protocol], timeout=30)
        got = []
        while data := client.recv():
            got.append(data.encode() if isinstance(data, str) else data)
        client.shutdown()
        assert [message for message in got if len(message) > 1] == [wanted]


def test_debug(kubectl: Kubectl):
    words = ["debug", "-it", "p", f"--image={IMAGE}", "--image-pull-policy=IfNotPresent", "--target=main", "-q"]
    with kubectl.terminal(*words, "--", "sh") as terminal:
        terminal.type("cat /proc/1/cmdline; echo .\n")
        terminal.expect("trap 'exit 0' TERM")
        terminal.type("exit\n")
        assert terminal.code() == 0


def test_much_data_both_ways_through_a_port(sessions: Kubectl):
    data = os.urandom(8 << 20)
    with sessions.forwarded("pod/p", 7000) as port:
        assert through(port, data) == data
        assert [through(port, b"%d" % number) for number in range(10)] == [b"%d" % number for number in range(10)]


def test_a_port_of_a_pod_on_the_hosts_network(kubectl: Kubectl):
    with kubectl.forwarded("pod/host", 7999) as port:
        assert through(port, b"hello") == b"hello"


def test_a_port_where_nobody_listens(sessions: Kubectl):
    with sessions.started("port-forward", "pod/p", ":81") as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
        assert through(port, b"") == b""
        said = process.stdout.read().decode()
    assert "failed to connect to localhost:81 inside the pod's network" in said
    assert "connection refused" in said


def post(lab: PodLab, path: str) -> tuple[int, str]:
    """Ask the node's API as the cluster's administrator."""
    import ssl

    access = lab.api.api_client.configuration
    context = ssl.create_default_context(cafile=access.ssl_ca_cert)
    context.check_hostname = False
    context.load_cert_chain(access.cert_file, access.key_file)
    url = f"https://127.0.0.1:{lab.node.settings['port']}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), context=context, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_run_on_the_nodes_api(stream_lab: PodLab):
    base = f"/run/{stream_lab.namespace}/p"
    uid = stream_lab.get("p").metadata.uid
    assert post(stream_lab, f"{base}/main?cmd=echo+hello") == (200, "hello\n")
    assert post(stream_lab, f"{base}/{uid}/main?cmd=echo+hello") == (200, "hello\n")
    assert post(stream_lab, f"{base}/other?cmd=true") == (500, 'container not found ("other")\n')
    assert post(stream_lab, f"/run/{stream_lab.namespace}/q/main?cmd=true") == (404, "pod does not exist\n")
    code, text = post(stream_lab, f"{base}/main?cmd=ls+/nosuch")
    assert (code, text.partition(":")[0]) == (500, "command 'ls /nosuch' exited with 1")


def test_a_killed_agent_leaves_no_command_behind(stream_lab: PodLab, kubectl: Kubectl):
    node = stream_lab.node
    with kubectl.started("exec", "p", "-c", "main", "--", "sleep", "71234569"):
        wait_until("the command runs", lambda: sleepers(71234569))
        node.stop(signal.SIGKILL)
    assert sleepers(71234569)
    node.start()
    wait_until("the command has been killed", lambda: not sleepers(71234569))
    wait_until("the agent serves again", lambda: serves(kubectl))
    assert not [path for path in (node.run / "rt/c").iterdir() if "-x" in path.name]
