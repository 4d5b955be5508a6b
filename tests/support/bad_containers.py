"""Containers with something bad in them, by the entries of the catalogue of known attacks.

C: the image's configuration, P: the Pod's spec, T: the image's files, D: what every caller of runc has to do. A row is
a name that begins with the entry, what is changed in a plain container, and what has to come of it.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodewright_agent.runtime.spec import Mount, Resources, User
from support.runtime_host import Host

Fields = Callable[[Path, Host], dict[str, Any]]
"""From a directory of its own and the host to the fields of a ContainerSpec."""


def layer(make: Callable[[Path], object]) -> Fields:
    """A layer above busybox's, with something bad in it."""

    def fields(directory: Path, host: Host) -> dict[str, Any]:
        top = directory / "top"
        (top / "etc").mkdir(parents=True)
        make(top)
        return {"lowers": [str(top), str(host.layer)]}

    return fields


def given(**fields: Any) -> Fields:
    return lambda directory, host: fields


def both(*parts: Fields) -> Fields:
    return lambda directory, host: {name: value for part in parts for name, value in part(directory, host).items()}


def image_user(text: str) -> Fields:
    return given(user=User(image_user=text))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def program(content: bytes, mode: int = 0o755) -> Callable[[Path], None]:
    def make(top: Path) -> None:
        (top / "app").write_bytes(content)
        (top / "app").chmod(mode)

    return make


def bind(directory: Path, destination: str, *options: str) -> Mount:
    source = directory / "volume"
    source.mkdir(exist_ok=True)
    return Mount(str(source), destination, "bind", list(options))


def mounted(destination: str) -> Fields:
    return lambda directory, host: {"mounts": [bind(directory, destination)]}


def missing_source(directory: Path, host: Host) -> dict[str, Any]:
    return {"mounts": [Mount(str(directory / "nothing"), "/v")]}


def replaced_log(make: Callable[[Path], object]) -> Fields:
    def fields(directory: Path, host: Host) -> dict[str, Any]:
        (host.logs / "bad").mkdir()
        make(host.logs / "bad/0.log")
        return {}

    return fields


ELF_FOR_ANOTHER_MACHINE = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + b"\x02\x00" + b"\x16\x00" + bytes(200)
NO_SUCH_SYSTEM_CALL_ACTION = {"defaultAction": "SCMP_ACT_NONSENSE", "syscalls": []}

REFUSED = [
    ("C01 a negative user", image_user("-1"), "user -1: numeric ids must be 0 to 2147483647"),
    ("C01 a user past 32 bits", image_user("4294967296"), "user 4294967296: numeric ids must be"),
    ("C01 a user that wraps to root", image_user("2147483648"), "user 2147483648: numeric ids must be"),
    ("C01 a group past 32 bits", image_user("1000:99999999999"), "group 99999999999: numeric ids must be"),
    ("C01 a name that is not there", image_user("ghost"), "unable to find user ghost"),
    ("C01 a third part", image_user("bob:users:x"), "unable to find group users:x"),
    ("C01 runAsUser past 31 bits", given(user=User(uid=1 << 31)), "user.uid 2147483648: expected 0 to"),
    ("C01 supplementalGroups past 31 bits", given(user=User(additional_gids=[1 << 31])), "additional_gids 2147483648"),
    ("C02 passwd is a FIFO", layer(lambda top: os.mkfifo(top / "etc/passwd")), "/etc/passwd in the image is not a"),
    ("C02 group is a FIFO", layer(lambda top: os.mkfifo(top / "etc/group")), "/etc/group in the image is not a"),
    (
        "C02 passwd is a device",
        layer(lambda top: os.mknod(top / "etc/passwd", stat.S_IFCHR | 0o666, os.makedev(1, 5))),
        "etc/passwd in the image",
    ),
    ("C02 passwd is a directory", layer(lambda top: (top / "etc/passwd").mkdir()), "is not a regular file"),
    ("C02 passwd has a gigabyte", layer(lambda top: huge(top / "etc/passwd")), "is larger than 4194304 bytes"),
    ("C02 group has a gigabyte", layer(lambda top: huge(top / "etc/group")), "is larger than 4194304 bytes"),
    (
        "C02 passwd is a link that turns in circles",
        layer(lambda top: (top / "etc/passwd").symlink_to("passwd")),
        "Too many levels of symbolic links",
    ),
    (
        "C02 passwd is a link to the host's",
        both(layer(lambda top: (top / "etc/passwd").symlink_to("../../../../etc/shadow")), image_user("root")),
        "unable to find user root",
    ),
    ("C03 below /proc", given(cwd="/proc/self/fd/7"), "working directory '/proc/self/fd/7' is below /proc"),
    ("C03 relative", given(cwd="x"), "working directory 'x' is not an absolute path"),
    ("C03 a NUL byte", given(cwd="/a\0b"), "cwd: NUL byte"),
    (
        "C03 a link below /proc",
        both(layer(lambda top: (top / "w").symlink_to("/proc/self/fd/7")), given(cwd="/w")),
        "working directory '/w' leads into /proc through a symbolic link",
    ),
    (
        "C03 a link out of the image",
        both(layer(lambda top: (top / "w").symlink_to("../../../etc")), given(cwd="/w")),
        "leads out of the image through a symbolic link",
    ),
    ("C03 a file", both(layer(lambda top: (top / "w").touch()), given(cwd="/w")), "not a directory"),
    ("C04 a variable without =", given(env=["novalue"]), "env: 'novalue' is not NAME=value"),
    ("C04 a variable without a name", given(env=["=x"]), "env: '=x' is not NAME=value"),
    ("C04 a NUL byte in a variable", given(env=["A=\0"]), "env: NUL byte"),
    ("C04 a NUL byte in the command", given(argv=["a\0"]), "argv: NUL byte"),
    ("C04 neither command nor entrypoint", given(argv=[]), "no command specified"),
    ("C04 half of a surrogate pair", given(argv=["true", "\ud800"]), "argv: '\\ud800' is not valid UTF-8"),
    ("C04 half of a surrogate pair in a variable", given(env=["A=\udc80"]), "env: 'A=\\udc80' is not valid UTF-8"),
    ("C04 no such program", given(argv=["nosuch"]), "executable file not found in $PATH"),
    ("C04 no right to execute", both(layer(program(b"#!/bin/sh\n", 0o644)), given(argv=["/app"])), "permission denied"),
    ("C04 the program is a directory", given(argv=["/etc"]), 'exec: "/etc": permission denied'),
    ("C06 a volume over /dev", given(image_volumes=["/dev"]), "invalid image: volume '/dev' is below /dev"),
    ("C06 a volume with ..", given(image_volumes=["/a/../../b"]), "mount path '/a/../../b': expected"),
    ("C06 a volume on a file", given(image_volumes=["/etc/passwd/x"]), "/etc/passwd is not a directory"),
    (
        "C06 a volume through a link",
        both(layer(lambda top: (top / "v").symlink_to("../../../tmp")), given(image_volumes=["/v/x"])),
        "leads out of the image",
    ),
    ("C07 seccomp that runc does not know", given(seccomp=NO_SUCH_SYSTEM_CALL_ACTION), "SCMP_ACT_NONSENSE"),
    ("C07 an AppArmor profile that is not there", given(app_armor="nothing"), "apparmor"),
    ("C07 a capability that there is not", given(capabilities=["CAP_NO"]), "there is no capability CAP_NO"),
    ("P02 nothing there", missing_source, "no such file or directory"),
    ("P03 on the root", mounted("/"), "mount path '/': expected an absolute path other than /"),
    ("P03 with ..", mounted("/a/../../b"), "mount path '/a/../../b': expected"),
    ("P03 relative", mounted("a"), "mount path 'a': expected"),
    ("P03 inside /proc", mounted("/proc/sys/kernel"), "inside /proc"),
    (
        "P03 through a link into /proc",
        both(layer(lambda top: (top / "etc/resolv.conf").symlink_to("/proc/1/root/x")), mounted("/etc/resolv.conf")),
        "leads into /proc through a symbolic link",
    ),
    (
        "P03 through a link out of the image",
        both(layer(lambda top: (top / "out").symlink_to("../../../../tmp")), mounted("/out/x")),
        "leads out of the image through a symbolic link",
    ),
    ("P05 the log is a link", replaced_log(lambda path: path.symlink_to("/etc/shadow")), "is not a regular file"),
    ("P05 the log is a FIFO", replaced_log(os.mkfifo), "is not a regular file"),
    ("P06 memory for nothing", given(resources=Resources(memory_limit=4096)), "memory"),
    ("P11 a cgroup elsewhere", given(cgroup_parent="/a/../b"), "cgroup_parent '/a/../b'"),
    ("P13 an id with a path in it", given(id="../x"), "id '../x'"),
    *(
        (
            f"T11 /{name} is a {kind}",
            layer(lambda top, name=name, make=make: make(top / name)),
            f"invalid image: /{name} is {text}",
        )
        for name in ("dev", "proc", "sys")
        for kind, make, text in (
            ("link", lambda path: path.symlink_to("/tmp"), "a symbolic link"),
            ("file", lambda path: path.touch(), "not a directory"),
        )
    ),
]

# As under other runtimes these fail when the program is to begin: the log has the reason, the exit code is not 0.
ENDED = [
    ("C04 a variable of 10 MB", given(env=["A=" + "x" * 10_000_000]), "argument list too long"),
    ("C04 a word of 10 MB", given(argv=["/bin/true", "x" * 10_000_000]), "argument list too long"),
    ("C04 another machine's", both(layer(program(ELF_FOR_ANOTHER_MACHINE)), given(argv=["/app"])), "exec format error"),
    ("C04 no interpreter", both(layer(program(b"#!/missing\n")), given(argv=["/app"])), "no such file or directory"),
    ("C04 an empty file", both(layer(program(b"")), given(argv=["/app"])), "exec format error"),
]


ACCOUNTS = "not a line\n:x:5:5\nbob:x:70000000000:1\nbob:x:1000:100::/:/bin/sh\nann:x:1000:200::/:/bin/sh\n"
WHO = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | cut -f2 | tr '\n' ' '"
LOOK = "ls /proc/self/fd"  # 0, 1, 2, and the directory that is being read


def accounts(top: Path) -> None:
    (top / "etc/passwd").write_bytes(ACCOUNTS.encode() + b"\xff\xfe:x:3:3\n")
    (top / "etc/group").write_text("users:x:100\nbad\naudio:x:29:bob,,ann\nhuge:x:99999999999:bob\n")


def strange_sources(directory: Path, host: Host) -> dict[str, Any]:
    names = ["a:b", "c,d", "e\nf", "g\\h", "i j"]
    for name in names:
        (directory / name).mkdir()
        (directory / name / "here").write_text(f"{names.index(name)}\n")
    return {"mounts": [Mount(str(directory / name), f"/v/{name}") for name in names]}


def nested(directory: Path, host: Host) -> dict[str, Any]:
    (directory / "inner").mkdir()
    (directory / "inner/file").write_text("inner\n")
    # In the wrong order, and one over a file that the image has.
    (directory / "hosts").write_text("hosts\n")
    return {
        "mounts": [
            Mount(str(directory / "inner"), "/v/deep"),
            bind(directory, "/v", "ro"),
            Mount(str(directory / "hosts"), "/etc/passwd"),
        ]
    }


def nested_source(directory: Path, host: Host) -> dict[str, Any]:
    made = nested(directory, host)
    (directory / "volume/deep").mkdir()
    return made


HELD = [
    ("C01 the first line of two counts", both(layer(accounts), image_user("1000")), WHO, ["1000 100 29 100  "]),
    ("C02 lines without sense", both(layer(accounts), image_user("ann")), WHO, ["1000 200 29 200  "]),
    ("C03 made where it is missing", given(cwd="/made/for/me"), "pwd", ["/made/for/me"]),
    ("C04 a line break in the command", given(), "echo 'a\nb'", ["a", "b"]),
    (
        "C06 writable under any root",
        given(read_only_rootfs=True, image_volumes=["/tmp"]),
        "touch /tmp/x; ls /tmp",
        ["x"],
    ),
    ("C07 the default filter is on", given(), "grep ^Seccomp: /proc/self/status", ["Seccomp:\t2"]),
    ("C07 the filter of no architecture of ours", given(), "unshare -U true 2>&1 | grep -c permitted", ["1"]),
    ("P02 paths that look like options", strange_sources, "cat /v/*/here", ["0", "1", "2", "3", "4"]),
    (
        "P03 inner mounts after outer ones",
        nested_source,
        "cat /v/deep/file /etc/passwd; touch /v/deep/x && echo made; touch /v/x 2>&1 | grep -c Read-only",
        ["inner", "hosts", "made", "1"],
    ),
    ("P12 very many variables", given(env=[f"N{number}=x" for number in range(4096)]), "env | grep -c ^N", ["4096"]),
    ("D no descriptor but three", given(), LOOK, ["0", "1", "2", "3"]),
    ("D none of the agent's variables", given(), "env | grep -c -e LISTEN -e NOTIFY -e ^BAIT", ["0"]),
    (
        "D what tells of the host is hidden",
        given(),
        "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c;"
        " ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w",
        ["0", "0"],
    ),
    (
        "D the kernel's knobs are read-only",
        given(),
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity"
        " /sys/kernel/mm/ksm/run; do (echo x >$f) 2>/dev/null && echo $f; done;"
        " grep -c -e ' /proc/sys ro,' -e ' /proc/bus ro,' -e ' /sys ro,' /proc/self/mountinfo",
        ["3"],
    ),
    (
        "D no device of the host",
        given(),
        "for d in 'b 7 0' 'c 1 1'; do busybox mknod /x $d; head -c 1 /x 2>&1 | grep -c permitted; rm /x; done;"
        "ls /dev | grep -v -e core -e fd -e std -e ptmx | tr '\n' ' '",
        ["1", "1", "full mqueue null pts random shm tty urandom zero "],
    ),
    (
        "D containerd's capabilities, none ambient or inheritable",
        given(),
        "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | tr '\n' ' '",
        [f"{'0' * 16} {'00000000a80425fb ' * 3}{'0' * 16} "],
    ),
    (
        "D no terminal unless asked",
        given(),
        "test -c /dev/console || echo none; tty 2>&1 | grep -c 'not a tty'",
        ["none", "1"],
    ),
]
