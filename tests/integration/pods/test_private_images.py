"""Images that not everybody may have: pull secrets, credential providers, and Pods that come after others' pulls."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from nodewright.controlplane.cluster import LocalCluster
from support.agent_node import AgentNode
from support.pod_lab import PodLab, main_status
from support.private_registry import PrivateRegistry, make_secret

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.timeout(180)]

PRESENT = "already present on machine and can be accessed by the pod"


@pytest.fixture
def registry(lab_cluster: LocalCluster) -> Iterator[PrivateRegistry]:
    made = PrivateRegistry()
    yield made
    if not made._loop.is_closed():
        made.close()


def make_pod(lab: PodLab, name: str, registry: PrivateRegistry, *secrets: str, policy: str = "IfNotPresent") -> None:
    spec = {"imagePullSecrets": [{"name": secret} for secret in secrets]} if secrets else {}
    lab.create(name, container={"image": registry.image, "imagePullPolicy": policy}, **spec)


def waiting_message(pod: Any) -> str:
    return str(main_status(pod).state.waiting.message)


def test_an_image_that_one_pod_pulled_is_not_everybodys(own_lab: PodLab, registry: PrivateRegistry) -> None:
    lab, name = own_lab, registry.image
    make_secret(lab, "good", registry.host, "right")
    make_secret(lab, "copy", registry.host, "right")
    make_secret(lab, "bad", registry.host, "wrong")
    make_pod(lab, "owner", registry, "good")
    lab.wait_phase("owner", "Running")
    lab.wait_event("owner", "Pulled", f'Successfully pulled image "{name}" in ')

    make_pod(lab, "stranger", registry)
    make_pod(lab, "liar", registry, "bad")
    make_pod(lab, "absent", registry, "no-such-secret")
    make_pod(lab, "never", registry, "bad", policy="Never")
    make_pod(lab, "friend", registry, "copy", policy="Never")
    lab.wait_phase("friend", "Running")
    lab.wait_event("friend", "Pulled", f'Container image "{name}" {PRESENT}')
    said = waiting_message(lab.wait_waiting("never", "ErrImageNeverPull"))
    assert said == f'Container image "{name}" is not present with pull policy of Never'
    for pod in ("stranger", "liar", "absent"):
        said = waiting_message(lab.wait_waiting(pod, "ImagePullBackOff"))
        assert said.startswith(
            f'Back-off pulling image "{name}": ErrImagePull: failed to pull and unpack image "{name}": '
        )
        assert "pull access denied" in said
        lab.wait_event(pod, "Failed", f'Failed to pull image "{name}": ')
    lab.wait_event("absent", "FailedToRetrieveImagePullSecret", "no-such-secret")
    metrics = lab.ask_node("metrics")
    assert 'kubelet_image_pull_duration_seconds_count{image_size_in_bytes="0-10MB"} 1' in metrics
    assert 'kubelet_imagemanager_image_mustpull_checks_total{result="credentialRecordFound"} 1' in metrics

    lab.node.stop()
    registry.close()  # whoever needs it from now on does not start
    lab.node.start()
    lab.wait_ready()
    make_pod(lab, "later", registry, "good")
    make_pod(lab, "latecomer", registry)
    lab.wait_phase("later", "Running")
    lab.wait_waiting("latecomer", "RegistryUnavailable")


PROVIDER = """#!/bin/sh
cat >>{folder}/requests; echo >>{folder}/requests
echo '{{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
"cacheKeyType": "Registry", "cacheDuration": "0s", "auth": {{"{host}": {{"username": "user", "password": "right"}}}}}}'
"""
AUDIENCE = "registry.test"


def provider_settings(folder: Path, host: str) -> dict[str, Any]:
    """A node whose own credential is wrong, and a provider that knows better for Pods with a certain ServiceAccount."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "knows"
    program.write_text(PROVIDER.format(folder=folder, host=host))
    program.chmod(0o755)
    tokens = {
        "serviceAccountTokenAudience": AUDIENCE,
        "cacheType": "ServiceAccount",
        "requireServiceAccount": True,
        "requiredServiceAccountAnnotationKeys": ["registry.test/role"],
    }
    provider = {
        "name": "knows",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "matchImages": [host],
        "defaultCacheDuration": "0s",
        "tokenAttributes": tokens,
    }
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [provider],
    }
    (folder / "providers.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"username": "user", "password": "wrong"}}}))
    return {
        "image_credential_files": [str(folder / "config.json")],
        "image_credential_provider_config": str(folder / "providers.json"),
        "image_credential_provider_bin_dir": str(folder / "bin"),
    }


def allow_tokens(lab: PodLab) -> None:
    """Let nodes ask for tokens with the audience (ServiceAccountNodeAudienceRestriction)."""
    api = client.RbacAuthorizationV1Api(lab.api.api_client)
    name = f"tokens-{lab.namespace}"
    rule = {"apiGroups": [""], "resources": [AUDIENCE], "verbs": ["request-serviceaccounts-token-audience"]}
    api.create_cluster_role({"metadata": {"name": name}, "rules": [rule]})
    nodes = {"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    api.create_cluster_role_binding({"metadata": {"name": name}, "subjects": [nodes], "roleRef": role})


def test_a_provider_knows_credentials_for_a_service_account(
    lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], registry: PrivateRegistry, tmp_path: Path
) -> None:
    node = make_node(image_root=str(tmp_path / "images"), **provider_settings(tmp_path, registry.host))
    node.start()
    with PodLab(lab_cluster, node) as lab:
        lab.wait_ready()
        allow_tokens(lab)
        account = {"metadata": {"name": "puller", "annotations": {"registry.test/role": "reader"}}}
        lab.api.create_namespaced_service_account(lab.namespace, account)
        wanted = {"image": registry.image, "imagePullPolicy": "IfNotPresent"}
        lab.create("first", container=wanted, serviceAccountName="puller")
        lab.wait_phase("first", "Running")
        request = json.loads((tmp_path / "requests").read_text().splitlines()[0])
        assert request["image"] == f"{registry.host}/app"
        assert request["serviceAccountAnnotations"] == {"registry.test/role": "reader"}
        claims = json.loads(base64.urlsafe_b64decode(request["serviceAccountToken"].split(".")[1] + "=="))
        assert claims["aud"] == [AUDIENCE]
        assert claims["kubernetes.io"]["pod"]["name"] == "first"
        lab.create("other", container=wanted)
        lab.create("second", container=wanted, serviceAccountName="puller")
        lab.wait_phase("second", "Running")
        lab.wait_event("second", "Pulled", PRESENT)
        assert "pull access denied" in waiting_message(lab.wait_waiting("other", "ImagePullBackOff"))
        text = lab.ask_node("metrics")
        assert 'kubelet_credential_provider_plugin_duration_count{plugin_name="knows"} 2' in text
    node.close()
