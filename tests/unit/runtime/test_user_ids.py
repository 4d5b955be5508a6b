"""Which ids pods with user namespaces get: never two the same, over restarts too."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime import userns
from nodewright_agent.runtime.errors import SandboxError
from nodewright_agent.runtime.spec import IdRange

UNIT = userns.UNIT


@given(st.lists(st.integers(0, 12), unique=True, max_size=8), st.integers(1, 3))
def test_ranges_never_overlap(slots: list[int], blocks: int):
    pool = IdRange(UNIT, 20 * UNIT)
    taken = [IdRange(UNIT * (1 + slot), UNIT) for slot in slots]
    try:
        made = userns.first_free(pool, blocks * UNIT, taken)
    except SandboxError:
        return
    assert made.start % UNIT == 0
    assert pool.start <= made.start
    assert made.start + made.length <= pool.start + pool.length
    assert all(made.start + made.length <= one.start or one.start + one.length <= made.start for one in taken)


def test_a_gap_is_used_again_and_an_end_is_told():
    pool, third = IdRange(UNIT, 3 * UNIT), IdRange(3 * UNIT, UNIT)
    assert userns.first_free(pool, UNIT, [IdRange(UNIT, UNIT), third]) == IdRange(2 * UNIT, UNIT)
    with pytest.raises(SandboxError, match=r"no user ids are left .* \(65536 to 262143 are in use\)"):
        userns.first_free(pool, UNIT, [IdRange(UNIT, UNIT), IdRange(2 * UNIT, UNIT), third])


def test_claims_are_on_disk(tmp_path: Path):
    def pool() -> userns.IdPool:
        return userns.IdPool(tmp_path, userns.default_range(2, UNIT))

    first = pool().claim("a")
    assert pool().claim("a") == pool().get("a") == first
    second = pool().claim("b")
    assert second.start == first.start + UNIT
    with pytest.raises(SandboxError):
        pool().claim("c")
    (tmp_path / "a" / userns.FILE).unlink()
    # Half written is not written: the file has another name until it is whole.
    (tmp_path / "a" / f".{userns.FILE}").write_text("{")
    assert pool().claim("c") == first


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("65536:131072", ""),
        ("0:65536", "the first id must be a multiple of 65536, at least 65536"),
        ("100000:65536", "must be a multiple"),
        ("65536:1000", "too few"),
        ("65536:9999999999", "more than there are"),
        ("x", "is not FIRST:COUNT"),
        ("65536:", "is not FIRST:COUNT"),
    ],
)
def test_ranges_of_the_settings(tmp_path: Path, text: str, told: str):
    users = userns.for_node(tmp_path, text, UNIT, 2)
    assert told in users.problem
    assert users.supported is not bool(told)
    if told:
        with pytest.raises(SandboxError, match=r"can't set `spec\.hostUsers: false`, runtime does not support user"):
            users.claim("a")


def test_subordinate_ids():
    line = "kubelet:131072:655360\n"
    assert userns.subordinate_range(f"bob:100000:65536\n{line}", line, UNIT) == IdRange(131072, 655360)
    assert userns.subordinate_range("bob:100000:65536\n", "", UNIT) is None
    own = "nodewright:65536:65536\n"
    assert userns.subordinate_range(own + line, own + line, UNIT) == IdRange(UNIT, UNIT)
    for uids, gids in ((line, ""), (line * 2, line * 2), (line, "kubelet:65536:65536\n")):
        with pytest.raises(userns.RangeError, match="one and the same line for kubelet"):
            userns.subordinate_range(uids, gids, UNIT)


def test_what_the_host_cannot_is_told(tmp_path: Path):
    users = userns.for_node(tmp_path, "", UNIT, 2, "tmpfs: Invalid argument")
    assert not users.supported
    with pytest.raises(SandboxError, match="user namespaces: tmpfs: Invalid argument"):
        users.claim("a")
