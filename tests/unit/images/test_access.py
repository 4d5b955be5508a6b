"""Who may use an image that is here already: the policies, the records and the decision."""

import msgspec
import pytest

from nodewright_agent.runtime.images import access
from nodewright_agent.runtime.images.access import (
    Allowlist,
    PulledRecord,
    PulledRecords,
    SecretUse,
    Shown,
    Verdict,
    Verification,
    check,
    entitling,
    is_new,
    merged,
    shown_by,
)
from nodewright_agent.runtime.images.credentials import Credential, Origin
from nodewright_agent.runtime.images.records import Layout
from nodewright_agent.runtime.images.reference import parse

IMAGE = parse("r.example/team/app:1")
ID = "sha256:" + "a" * 64


def secret(name="s", password="p", namespace="ns", uid=""):
    return Credential("r.example", "u", password, origin=Origin("Secret", uid or f"uid-{name}", namespace, name))


def account(name="default", uid="uid"):
    return Credential("r.example", "u", "t", origin=Origin("ServiceAccount", uid, "ns", name))


NODE = Credential("r.example", "node", "n")


@pytest.mark.parametrize(
    ("pattern", "image", "allowed"),
    [
        ("r.example/team/app", "r.example/team/app:2", True),
        ("r.example/team/app", f"r.example/team/app@sha256:{'0' * 64}", True),
        ("r.example/team/app", "r.example/team/app2:2", False),
        ("r.example/team/*", "r.example/team/app:1", True),
        ("r.example/team/*", "r.example/team/deep/app:1", True),
        ("r.example/team/*", "r.example/teams/app:1", False),
        ("r.example:5000/*", "r.example:5000/a:1", True),
        ("busybox", "docker.io/library/busybox:1", True),
        ("docker.io/library/busybox", "busybox", True),
    ],
)
def test_the_allowlist(pattern, image, allowed):
    assert (parse(image) in Allowlist([pattern])) is allowed


@pytest.mark.parametrize(
    "pattern", ["", " a", "a ", "a:1", f"a@sha256:{'0' * 64}", "*", "a*", "/*", "a/*/b", "a/*/*", "A"]
)
def test_allowlists_that_are_refused(pattern):
    with pytest.raises(ValueError, match=r"\S"):
        Allowlist([pattern])


@pytest.mark.parametrize(
    ("policy", "pulled", "needed"),
    [
        ("NeverVerify", True, False),
        ("NeverVerifyPreloadedImages", False, False),
        ("NeverVerifyPreloadedImages", True, True),
        ("NeverVerifyAllowlistedImages", True, False),
        ("AlwaysVerify", False, True),
    ],
)
def test_policies(policy, pulled, needed):
    assert Verification(policy, ["r.example/team/*"]).needed(IMAGE, pulled) is needed


def test_what_a_credential_shows():
    assert shown_by(None) == shown_by(NODE) == Shown(everybody=True)
    one = secret()
    assert shown_by(one) == Shown(secrets=[SecretUse(one.origin, one.digest)])
    assert shown_by(account()) == Shown(accounts=[account().origin])
    assert one.digest == secret("other").digest != secret(password="q").digest
    assert b"pa55word" not in msgspec.json.encode(shown_by(secret(password="pa55word")))


def test_what_is_known_grows():
    both = merged(shown_by(secret("b")), shown_by(secret("a")))
    assert [use.origin.name for use in both.secrets] == ["a", "b"]
    rotated = merged(both, shown_by(secret("a", "new")))
    assert [use.digest for use in rotated.secrets] == [secret("a", "new").digest, secret("b").digest]
    assert merged(rotated, shown_by(account())).accounts == [account().origin]
    assert merged(rotated, shown_by(NODE)) == Shown(everybody=True)
    assert merged(Shown(everybody=True), shown_by(secret())) == Shown(everybody=True)
    assert merged(None, shown_by(secret())) == shown_by(secret())


@pytest.mark.parametrize(
    ("known", "have", "found"),
    [
        (shown_by(secret()), [secret()], 0),
        (shown_by(secret()), [secret("copy", namespace="other")], 0),  # the same password
        (shown_by(secret()), [secret(password="rotated")], 0),  # the same Secret
        (shown_by(secret()), [secret(password="rotated", uid="new")], None),  # another of this name
        (shown_by(secret()), [secret("x", "wrong"), secret()], 1),
        (shown_by(secret()), [NODE], None),
        (shown_by(secret()), [], None),
        (shown_by(account()), [account()], 0),
        (shown_by(account()), [account(uid="recreated")], None),
        (shown_by(account("b")), [account("a"), account("b")], None),  # a Pod has one account
        (None, [secret()], None),
    ],
)
def test_which_credential_entitles(known, have, found):
    assert entitling(known, have) == (None if found is None else have[found])


def test_a_long_record_takes_no_more_and_trusts_no_rotation():
    full = Shown(secrets=[SecretUse(secret(f"s{i}").origin, secret(password=f"p{i}").digest) for i in range(100)])
    assert entitling(full, [secret("s1", "rotated")]) is None
    equal = secret("new", "p7")
    assert entitling(full, [equal]) == equal
    record = PulledRecord(ID, {IMAGE.repository: full})
    assert not is_new(record, IMAGE, equal)
    assert is_new(PulledRecord(ID, {IMAGE.repository: shown_by(secret())}), IMAGE, equal)


@pytest.mark.parametrize(
    ("record", "have", "verdict", "asked"),
    [
        (None, [], Verdict.POLICY, False),
        (PulledRecord(ID), [secret()], Verdict.ASK, False),
        (PulledRecord(ID, {"r.example/other": shown_by(NODE)}), [], Verdict.ASK, False),
        (PulledRecord(ID, {IMAGE.repository: shown_by(NODE)}), [], Verdict.KNOWN, False),
        (PulledRecord(ID, {IMAGE.repository: shown_by(secret())}), [secret()], Verdict.KNOWN, True),
        (PulledRecord(ID, {IMAGE.repository: shown_by(secret())}), [], Verdict.ASK, True),
    ],
)
async def test_the_check_looks_credentials_up_only_where_they_matter(record, have, verdict, asked):
    calls = []

    async def lookup():
        calls.append(1)
        return have

    found, _ = await check(Verification(), record, IMAGE, lookup)
    assert (found, bool(calls)) == (verdict, asked)


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    made.make()
    return made


def test_records_are_kept(layout):
    records = PulledRecords(layout)
    assert records.get(ID) is None
    records.add(ID, IMAGE.repository, shown_by(secret("a")))
    records.add(ID, "r.example/other", shown_by(None))
    again = PulledRecords(layout).get(ID)
    assert again == PulledRecord(
        ID, {IMAGE.repository: shown_by(secret("a")), "r.example/other": Shown(everybody=True)}
    )
    assert records.count() == 1
    assert layout.pulled_record(ID).stat().st_mode & 0o077 == 0


def test_a_credential_that_proved_good_is_noted_only_while_the_image_is_there(layout):
    records = PulledRecords(layout)
    records.add(ID, IMAGE.repository, shown_by(secret("a")))
    records.note(ID, IMAGE.repository, secret("b"))
    assert records.get(ID).shown[IMAGE.repository] == shown_by(secret("a"))
    layout.image_record(ID).write_text("there")
    records.note(ID, IMAGE.repository, secret("b"))
    assert len(records.get(ID).shown[IMAGE.repository].secrets) == 2


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_corrupt_record_opens_the_image_to_nobody(layout, caplog, content):
    records = PulledRecords(layout)
    records.add(ID, IMAGE.repository, shown_by(None))
    path = layout.pulled_record(ID)
    path.write_bytes(path.read_bytes().replace(b"everybody", b"everyone") if content is None else content)
    assert records.get(ID) == PulledRecord(ID)
    assert "corrupt" in caplog.text
    assert PulledRecords(layout).get(ID) == PulledRecord(ID)  # and so it stays
    records.add(ID, IMAGE.repository, shown_by(secret()))
    assert records.get(ID).shown == {IMAGE.repository: shown_by(secret())}


def test_another_images_record_is_no_record(layout):
    records = PulledRecords(layout)
    records.add(ID, IMAGE.repository, shown_by(None))
    other = "sha256:" + "b" * 64
    layout.pulled_record(other).write_bytes(layout.pulled_record(ID).read_bytes())
    assert records.get(other) == PulledRecord(other)
    assert access.WRITE_LIMIT == 100
