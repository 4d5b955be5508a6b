from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.framework.webhook import certificates
from nodewright.framework.webhook.certificates import Lifetimes, UnusableMaterial, parse, plan

NAMES = ("hook.ns.svc", "hook.ns.svc.cluster.local", "127.0.0.1")
LIFE = Lifetimes()
START = datetime(2030, 1, 1, tzinfo=UTC)


def days(number):
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def first():
    return plan(None, None, NAMES, LIFE, START)


def test_a_new_one(first):
    assert len(first.authorities) == 1
    assert first.cert.not_valid_after_utc == days(90)
    assert first.authorities[0].not_valid_after_utc == days(3650)
    assert certificates.trusts(first.bundle, first)
    assert plan(first, None, NAMES, LIFE, START) is first


def test_it_survives_the_secret(first):
    assert parse(first.data()).data() == first.data()


def test_the_serving_certificate_is_renewed_after_two_thirds(first):
    assert certificates.next_look(first, LIFE) == days(60)
    assert plan(first, first, NAMES, LIFE, days(60) - timedelta(seconds=1)) is first
    renewed = plan(first, first, NAMES, LIFE, days(60))
    assert renewed.cert != first.cert
    assert renewed.key.public_key() != first.key.public_key()
    assert renewed.authorities == first.authorities
    assert renewed.cert.not_valid_after_utc == days(150)


def test_other_names_need_another_certificate(first):
    renewed = plan(first, first, ("other.ns.svc",), LIFE, START)
    assert renewed.cert != first.cert
    assert renewed.authorities == first.authorities


def test_the_authority_is_replaced_with_overlap(first):
    due = START + timedelta(days=3650) * 2 / 3
    rotated = plan(first, first, NAMES, LIFE, due)
    new, old = rotated.authorities
    assert old == first.authorities[0]
    assert new != old
    assert new.subject != old.subject
    assert certificates.is_issued_by(rotated.cert, new)
    # whoever still serves the old certificate is trusted by the new bundle
    assert certificates.trusts(rotated.bundle, first)
    assert certificates.next_look(rotated, LIFE) == due.replace(microsecond=0) + LIFE.overlap
    assert plan(rotated, first, NAMES, LIFE, due + LIFE.overlap / 2) is rotated
    after = plan(rotated, first, NAMES, LIFE, due + LIFE.overlap)
    assert after.authorities == (new,)
    assert after.cert == rotated.cert


def test_a_deleted_secret_leads_to_a_new_authority_beside_the_old(first):
    again = plan(None, first, NAMES, LIFE, days(1))
    assert again.authorities[0] != first.authorities[0]
    assert again.authorities[1:] == first.authorities
    assert plan(None, first, NAMES, LIFE, days(4000)).authorities[1:] == ()  # nobody trusts what has expired
    for _ in range(6):
        again = plan(None, again, NAMES, LIFE, days(1))
    assert len(again.authorities) == 4


def test_a_serving_certificate_never_outlives_its_authority():
    life = Lifetimes(authority=timedelta(days=30))
    made = plan(None, None, NAMES, life, START)
    assert made.cert.not_valid_after_utc == made.authorities[0].not_valid_after_utc


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("tls.crt", "a certificate cannot be read"),
        ("ca.crt", "a certificate cannot be read"),
        ("tls.key", "tls.key cannot be read"),
        ("ca.key", "ca.key cannot be read"),
    ],
)
def test_missing_and_broken_parts_are_named(first, part, text):
    data = first.data()
    for value in ("", "bm9uc2Vuc2U="):
        with pytest.raises(UnusableMaterial, match=text):
            parse({**data, part: value})
    with pytest.raises(UnusableMaterial, match=f"{part} is not base64"):
        parse({**data, part: "***"})


def test_parts_of_different_origin_are_refused(first):
    data, other = first.data(), plan(None, None, NAMES, LIFE, START).data()
    for part, text in (
        ("tls.key", "tls.key does not belong"),
        ("ca.key", "ca.key does not belong"),
        ("ca.crt", "ca.key does not belong"),
    ):
        with pytest.raises(UnusableMaterial, match=text):
            parse({**data, part: other[part]})
    with pytest.raises(UnusableMaterial, match="not signed by"):
        parse({**data, "ca.crt": other["ca.crt"], "ca.key": other["ca.key"]})


def test_a_foreign_bundle_is_no_trust(first):
    other = plan(None, None, NAMES, LIFE, START)
    assert not certificates.trusts(other.bundle, first)
    assert not certificates.trusts(b"", first)
    assert not certificates.trusts(b"nonsense", first)
    assert certificates.trusts(other.bundle + first.bundle, first)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), min_size=1, max_size=12))
def test_whatever_happens_what_is_stored_serves_and_what_was_served_stays_trusted(steps):
    """Time goes on by up to 90 s, and the Secret may be deleted; looks are on time."""
    life = Lifetimes(
        authority=timedelta(seconds=120),
        serving=timedelta(seconds=60),
        overlap=timedelta(seconds=10),
        backdate=timedelta(seconds=0),
    )
    now = START
    stored = plan(None, None, NAMES, life, now)
    for seconds, deleted in steps:
        target = now + timedelta(seconds=seconds)
        if deleted:
            before, stored = stored, plan(None, stored, NAMES, life, now)
            assert certificates.trusts(stored.bundle, before)
        while now < target:
            due = certificates.next_look(stored, life)
            if due > target:
                break
            now = max(now, due)
            before, stored = stored, plan(stored, stored, NAMES, life, now)
            assert stored is not before  # a look on time has something to do, or it would be repeated for ever
            assert certificates.trusts(stored.bundle, before)
        now = target
        assert stored.cert.not_valid_before_utc <= now < stored.cert.not_valid_after_utc
        assert certificates.trusts(stored.bundle, stored)
        assert parse(stored.data()).cert == stored.cert
