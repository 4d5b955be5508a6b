"""The format of env files: what a POSIX shell reads as well (KEP-3721)."""

import os
import subprocess

import msgspec
import pytest

from nodewright.kube.objects import Container
from nodewright_agent.pods.env import CreateContainerConfigError
from nodewright_agent.pods.volumes.envfiles import EnvFileError, parse, read
from nodewright_agent.pods.volumes.paths import PodPaths


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("  A='1'\n\t\tB='2'\n", "B", "2"),
        ("# one\n\n   # two\nA='x'\n", "A", "x"),
        ("A='x'", "B", ""),
        ("A='a#b=c'\n", "A", "a#b=c"),
        ("A='  x  '\n", "A", "  x  "),
        ("A=''\nB='y'\n", "A", ""),
        ("A='x' # why\nB='y'", "B", "y"),
        ("A='$HOME ${X} \\ \"q\"'\n", "A", '$HOME ${X} \\ "q"'),
        ("A='one\n\n  B=no\n'\nB='two'\n", "B", "two"),
        ("A='one\n  two\n'\n", "A", "one\n  two\n"),
        ("A='first'\nA='second'\n", "A", "first"),
    ],
)
def test_values(text, key, value):
    assert parse(text, key) == value
    if "first" not in text:  # a shell takes the last of two
        script = f'{text}\nprintf %s "${{{key}}}"'
        assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A ='x'\n", "line 1: whitespace before '=' is not allowed"),
        ("A= 'x'\n", "line 1: value must be enclosed in single quotes"),
        ("='x'\n", "invalid environment variable format at line 1"),
        ("A='x\ny'\nnothing\n", "invalid environment variable format at line 3"),
        ("A=x\n", "value must be enclosed in single quotes"),
        ('A="x"\n', "value must be enclosed in single quotes"),
        ("A='x''y'\n", "unexpected content after closing quote"),
        ("A='x'y\n", "unexpected content after closing quote"),
        ("A='x\n", "unclosed single quote"),
    ],
)
def test_what_is_not_in_the_format(text, said):
    with pytest.raises(EnvFileError, match=said):
        parse(text, "KEY")


def reader(path):
    selector = {"volumeName": "v", "path": path, "key": "A"}
    variable = {"name": "A", "valueFrom": {"fileKeyRef": selector}}
    return msgspec.convert({"name": "c", "image": "x", "env": [variable]}, Container)


def test_links_lead_nowhere_else_and_only_files_are_opened(tmp_path):
    paths = PodPaths(tmp_path, "uid")
    volume = paths.volume("empty-dir", "v")
    volume.mkdir(parents=True)
    (tmp_path / "secret").write_text("A='outside'\n")
    (volume / "ok").write_text("A='inside'\n")
    (volume / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(volume / "pipe")
    assert read(reader("ok"), paths) == {("v", "ok", "A"): "inside"}
    for path in ("pipe", "link", "absent", "../../../../secret"):
        with pytest.raises(CreateContainerConfigError, match="couldn't parse env file"):
            read(reader(path), paths)
