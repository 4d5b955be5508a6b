"""JSON and YAML that people write, and what would break a reader that takes everything."""

import subprocess
import sys

import pytest

from nodewright_agent import documents
from nodewright_agent.documents import MAX_DEPTH, DocumentError, decode


def laughs(levels: int, each: int) -> bytes:
    """Aliases of aliases: each**levels values from a few lines."""
    lines = ["l0: &l0 [x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * each)}]" for n in range(1, levels + 1)]
    return "\n".join(lines).encode()


def merges(levels: int, each: int) -> bytes:
    """The same by merge keys, which are written out while the document is read."""
    lines = ["l0: &l0 {a: 1}"]
    lines += [f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * each)}]}}" for n in range(1, levels + 1)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"a": [1, null]}', [{"a": [1, None]}]),
        (b"", []),
        (b"# only this", []),
        (b"null", [None]),
        (b"---\na: 1\n---\n---\nb: 2\n", [{"a": 1}, None, {"b": 2}]),
        (b"a: &x [1]\nb: *x\nc: *x", [{"a": [1], "b": [1], "c": [1]}]),
        (b"a: &x {k: 1}\nb: {<<: *x, l: 2}", [{"a": {"k": 1}, "b": {"k": 1, "l": 2}}]),
        (b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH, None),
        (b"a: " + b"[" * (MAX_DEPTH - 1) + b"x" + b"]" * (MAX_DEPTH - 1), None),
        (laughs(4, 10), None),
        (b"[" + b"1," * 150_000 + b"1]", None),
    ],
)
def test_what_is_read(data, found):
    read = decode(data)
    assert len(read) == 1 if found is None else read == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * 100_000, "nested deeper than 100 levels"),
        (b"[" * 500 + b"]" * 500, "nested deeper than 100 levels"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than 100 levels"),
        (b"a: " + b"[" * 100_000, "nested deeper than 100 levels"),
        (b"a: " + b"{b: " * 100_000, "nested deeper than 100 levels"),
        (b"- " * 100_000, "nested deeper than 100 levels"),
        ("\n".join(" " * n + "a:" for n in range(3000)).encode(), "nested deeper than 100 levels"),
        (laughs(200, 1), "nested deeper than 100 levels"),
        (laughs(3000, 1), "nested deeper than 100 levels"),
        (b"[" + b"1," * 2_000_000 + b"1]", "more than 200000 values"),
        (laughs(12, 10), "more than 200000 values, with what its aliases stand for"),
        (merges(12, 10), "more than 200000 values"),
        (b"a: &a [*a]", "an alias stands within what it stands for"),
        (b"a: &a {b: *a}", "an alias stands within what it stands for"),
        (b"a: &a {<<: *a}", "an alias stands within what it stands for"),
        (b"? &a [*a]\n: 1", "an alias stands within what it stands for"),
        (b"a: *none", "undefined alias"),
        (b"{[1]: 2}", "unhashable key"),
        (b"a: [", "while parsing"),
        (b"\x00", "control characters are not allowed"),
        (b"!!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"!!bool x", "a value is not what its tag says"),
        (b"!!int ''", "a value is not what its tag says"),
        (b"!!timestamp x", "a value is not what its tag says"),
    ],
)
def test_what_is_not(data, said):
    with pytest.raises(DocumentError) as caught:
        decode(data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_without_pyyaml_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert decode(b"{}") == [{}]
    with pytest.raises(DocumentError, match="is not JSON, and PyYAML is not installed to read it as YAML"):
        decode(b"a: 1")


def test_the_slow_loader_is_bounded_too():
    """Where PyYAML was built without libyaml."""
    script = (
        "import yaml; del yaml.CSafeLoader\nfrom nodewright_agent.documents import *\n"
        "for text in (b'a: ' + b'[' * 5000, b'a: &a [*a]'):\n"
        "    try: decode(text)\n    except DocumentError as error: print(error)"
    )
    path = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [
        "nested deeper than 100 levels",
        "an alias stands within what it stands for",
    ]


def test_the_bounds_leave_room():
    assert documents.MAX_VALUES >= 100_000, "a Pod with everything has some thousand"
