"""kubelet's CredentialProviderConfig: what is taken, and what is refused with which words."""

import json

import pytest

from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.pods import pullassembly
from nodewright_agent.runtime.images.providerconfig import ProviderConfigError, load
from nodewright_agent.runtime.images.store import ImageStore

V1 = "credentialprovider.kubelet.k8s.io/v1"
TOKEN = {"serviceAccountTokenAudience": "r.example", "requireServiceAccount": True, "cacheType": "ServiceAccount"}


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ecr", "gcr"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    (folder / "data").write_text("no program")
    return folder


def provider(name="ecr", **fields):
    return {
        "name": name,
        "apiVersion": V1,
        "matchImages": ["*.dkr.ecr.*.amazonaws.com"],
        "defaultCacheDuration": "12h",
        **fields,
    }


def document(*providers, **fields):
    return {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": providers,
        **fields,
    }


def test_a_file_with_everything(tmp_path, programs):
    path = tmp_path / "config.json"
    full = provider(args=["get"], env=[{"name": "A", "value": "b"}], tokenAttributes=TOKEN)
    path.write_text(json.dumps(document(full, provider("gcr", defaultCacheDuration="0s"))))
    first, second = load(path, programs)
    assert (first.name, first.args, first.env[0].value, first.cache_seconds) == ("ecr", ["get"], "b", 43200)
    assert first.token_attributes.service_account_token_audience == "r.example"
    assert (second.cache_seconds, second.token_attributes) == (0, None)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, programs):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "20.json").write_text(json.dumps(document(provider("ecr"))))
    (folder / "10.yaml").write_text(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
        f"- {{name: gcr, apiVersion: {V1}, matchImages: [gcr.io], defaultCacheDuration: 1m}}\n"
    )
    (folder / "README").write_text("not read")
    assert [one.name for one in load(folder, programs)] == ["gcr", "ecr"]
    (folder / "30.yml").write_text(json.dumps(document(provider("gcr"))))
    with pytest.raises(ProviderConfigError, match=r"30\.yml: provider 'gcr': occurs twice"):
        load(folder, programs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "missing required field `apiVersion`"),
        (document(kind="Other"), "is kubelet.config.k8s.io/v1 Other, not"),
        (document(apiVersion="v2"), "is v2 CredentialProviderConfig, not"),
        (document(), "has no providers"),
        (document(provider(unknown=1)), "unknown field `unknown`"),
        (document(provider("a/b")), "name: is no file name"),
        (document(provider("..")), "name: is no file name"),
        (document(provider("absent")), "absent does not exist"),
        (document(provider("data")), "data is not executable"),
        (document(provider(apiVersion="v1")), "apiVersion: 'v1' is none of"),
        (document(provider(matchImages=[])), "matchImages: is empty"),
        (document(provider(matchImages=["https://a"])), "matchImages: 'https://a' is not HOST"),
        (document(provider(defaultCacheDuration="soon")), "defaultCacheDuration: 'soon' is no duration"),
        (document(provider(defaultCacheDuration="-1s")), "defaultCacheDuration: '-1s' is no duration"),
        (document(provider(tokenAttributes={**TOKEN, "cacheType": "Pod"})), "Invalid enum value 'Pod'"),
        (document(provider(tokenAttributes={**TOKEN, "serviceAccountTokenAudience": ""})), "Audience: is empty"),
        (
            document(
                provider(
                    tokenAttributes={
                        **TOKEN,
                        "requireServiceAccount": False,
                        "requiredServiceAccountAnnotationKeys": ["a/b"],
                    }
                )
            ),
            "needs requireServiceAccount",
        ),
        (
            document(
                provider(
                    tokenAttributes={
                        **TOKEN,
                        "requiredServiceAccountAnnotationKeys": ["a/b"],
                        "optionalServiceAccountAnnotationKeys": ["a/b"],
                    }
                )
            ),
            "occurs twice, or is optional too",
        ),
        (document(provider(tokenAttributes={**TOKEN, "optionalServiceAccountAnnotationKeys": ["a b"]})), "'a b' is no"),
        (
            document(provider(apiVersion="credentialprovider.kubelet.k8s.io/v1beta1", tokenAttributes=TOKEN)),
            "needs apiVersion credentialprovider.kubelet.k8s.io/v1",
        ),
    ],
)
def test_what_is_refused(tmp_path, programs, content, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ProviderConfigError) as caught:
        load(path, programs)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_agent_does_not_start_with_a_bad_one(tmp_path, programs):
    given = {"image_credential_provider_config": "/none", "image_credential_provider_bin_dir": str(programs)}
    with pytest.raises(ConfigError, match=r"^image_credential_provider_config: /none: No such file"):
        pullassembly.puller(AgentConfig(**given), ImageStore(tmp_path / "images"), int, None, None, None, ())


def test_files_that_cannot_be_read(tmp_path, programs):
    with pytest.raises(ProviderConfigError, match="No such file"):
        load(tmp_path / "absent", programs)
    with pytest.raises(ProviderConfigError, match=r"has no \.json"):
        load(programs, programs)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ProviderConfigError, match="while parsing"):
        load(tmp_path / "bad.yaml", programs)
