"""What is read from a token, and what is not."""

from __future__ import annotations

import base64
import json

import pytest

from nodewright.kube.config import Config
from nodewright.kube.credentials import TokenSource
from nodewright.kube.serviceaccount import own_account, owner_references, parse

CLAIMS = {"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "operator", "uid": "u-1"}}}


def token(claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


@pytest.mark.parametrize("padding", ["", "x", "xx", "xxx"])
def test_a_bound_token_names_its_account(padding):
    owner = parse(token({**CLAIMS, "aud": [padding]}), "ns")
    assert owner is not None
    assert (owner.api_version, owner.kind, owner.name, owner.uid) == ("v1", "ServiceAccount", "operator", "u-1")
    # neither needs rights on the account's finalizers, nor keeps it from being deleted
    assert owner.controller is None
    assert owner.block_owner_deletion is None


def test_an_object_of_another_namespace_cannot_be_owned():
    assert parse(token(CLAIMS), "kube-system") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "opaque",
        "a.b.c",
        "a.é.c",
        "a.AAAAA.c",
        token([]),
        token("text"),
        token({"sub": "user"}),
        token({"kubernetes.io": {"namespace": "ns"}}),
        token({"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "operator", "uid": ""}}}),
        token({"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": 1, "uid": 2}}}),
    ],
)
def test_other_tokens_name_nobody(text):
    assert parse(text, "ns") is None


async def test_the_account_is_that_of_the_connection(tmp_path):
    file = tmp_path / "token"
    file.write_text(token(CLAIMS))
    config = Config("https://192.0.2.1", token=TokenSource.from_file(file))
    wanted = [{"apiVersion": "v1", "kind": "ServiceAccount", "name": "operator", "uid": "u-1"}]
    assert await owner_references(config, "ns") == wanted
    assert await owner_references(Config("https://192.0.2.1"), "ns") == []
    basic = Config("https://192.0.2.1", extra_headers=(("Authorization", f"Basic {token(CLAIMS)}"),))
    assert await own_account(basic, "ns") is None
