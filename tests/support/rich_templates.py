"""Pod templates that use everything, each field without its defaults: for the question what the API server adds."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def template(container: Json | None = None, **spec: Any) -> Json:
    """A template with one container, which gets these fields; the others are the pod's."""
    first = {"name": "c", "image": "registry.example/x:1", **(container or {})}
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [first], **spec}}


def _volume(**source: Any) -> Json:
    return template(volumes=[{"name": "v", **source}])


_HTTP = {"httpGet": {"port": 80}}
_FIELD = {"fieldRef": {"fieldPath": "metadata.name"}}
_RESOURCE = {"resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}
_CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}

VOLUMES: dict[str, Json] = {
    "awsElasticBlockStore": {"volumeID": "v"},
    "azureDisk": {"diskName": "d", "diskURI": "https://x.example/a.vhd"},
    "azureDisk managed": {"diskName": "d", "diskURI": "/subscriptions/x", "kind": "Managed", "cachingMode": "None"},
    "azureFile": {"secretName": "s", "shareName": "s"},
    "cephfs": {"monitors": ["a"]},
    "cinder": {"volumeID": "v"},
    "configMap": {"name": "c"},
    "configMap items": {"name": "c", "items": [{"key": "a", "path": "b"}]},
    "csi": {"driver": "d.example"},
    "csi secret": {"driver": "d.example", "volumeAttributes": {"a": ""}, "nodePublishSecretRef": {"name": "s"}},
    "downwardAPI": {"items": [{"path": "p", **_FIELD}, {"path": "r", **_RESOURCE}]},
    "emptyDir": {},
    "emptyDir memory": {"medium": "Memory", "sizeLimit": "1Gi"},
    "ephemeral": {"volumeClaimTemplate": _CLAIM},
    "ephemeral class": {
        "volumeClaimTemplate": {"metadata": {"labels": {"a": ""}}, "spec": {**_CLAIM["spec"], "storageClassName": "x"}}
    },
    "fc": {"targetWWNs": ["50060e801049cfd1"], "lun": 0},
    "flexVolume": {"driver": "a/b"},
    "flocker": {"datasetName": "d"},
    "gcePersistentDisk": {"pdName": "p"},
    "gitRepo": {"repository": "r"},
    "glusterfs": {"endpoints": "e", "path": "p"},
    "hostPath": {"path": "/x"},
    "hostPath directory": {"path": "/x", "type": "Directory"},
    "image": {"reference": "registry.example/y:1"},
    "image latest": {"reference": "registry.example/y"},
    "iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2001-04.com.example:storage", "lun": 0},
    "nfs": {"server": "s", "path": "/"},
    "persistentVolumeClaim": {"claimName": "c"},
    "photonPersistentDisk": {"pdID": "p"},
    "portworxVolume": {"volumeID": "v"},
    "projected": {
        "sources": [
            {"secret": {"name": "s", "items": [{"key": "a", "path": "b"}]}},
            {"configMap": {"name": "c"}},
            {"downwardAPI": {"items": [{"path": "p", **_FIELD}, {"path": "r", **_RESOURCE}]}},
            {"serviceAccountToken": {"path": "t"}},
        ]
    },
    "projected empty": {},
    "quobyte": {"registry": "a:1", "volume": "v"},
    "rbd": {"monitors": ["a"], "image": "i"},
    "scaleIO": {"gateway": "g", "system": "s", "secretRef": {"name": "s"}, "volumeName": "v"},
    "secret": {"secretName": "s"},
    "secret items": {"secretName": "s", "items": [{"key": "a", "path": "b", "mode": 256}]},
    "storageos": {"volumeName": "v"},
    "vsphereVolume": {"volumePath": "p"},
}

TEMPLATES: dict[str, Json] = {
    "plain": template(),
    "no tag": template({"image": "x"}),
    "latest": template({"image": "registry.example:5000/x:latest"}),
    "digest": template({"image": "x@sha256:" + "0" * 64}),
    "tag and digest": template({"image": "x:latest@sha256:" + "0" * 64}),
    "no volume source": _volume(),
    "ports": template({"ports": [{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP", "hostPort": 81}]}),
    "host network": template(
        {"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "hostPort": 81}]}, hostNetwork=True
    ),
    "host network of an init container": template(
        hostNetwork=True,
        initContainers=[{"name": "i", "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 90}]}],
    ),
    "host namespaces": template(hostPID=True, hostIPC=True, shareProcessNamespace=False, hostUsers=True),
    "env": template(
        {
            "env": [
                {"name": "A"},
                {"name": "B", "value": ""},
                {"name": "C", "value": "c"},
                {"name": "D", "valueFrom": _FIELD},
                {"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "G", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "H", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k", "optional": False}}},
            ],
            "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "p", "secretRef": {"name": "s"}}],
        }
    ),
    "probes": template(
        {
            "livenessProbe": _HTTP,
            "readinessProbe": {"tcpSocket": {"port": "x"}},
            "startupProbe": {"exec": {"command": ["a"]}},
        }
    ),
    "grpc": template(
        {"livenessProbe": {"grpc": {"port": 80}}, "readinessProbe": {"grpc": {"port": 80, "service": "s"}}}
    ),
    "probe with headers": template(
        {
            "livenessProbe": {
                "httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": ""}]},
                "initialDelaySeconds": 5,
            }
        }
    ),
    "lifecycle": template({"lifecycle": {"postStart": _HTTP, "preStop": {"exec": {"command": ["a"]}}}}),
    "lifecycle sleep": template(
        {"lifecycle": {"preStop": {"sleep": {"seconds": 3}}, "postStart": {"tcpSocket": {"port": 1}}}}
    ),
    "resources": template({"resources": {"limits": {"cpu": "1", "memory": "64Mi", "example.com/gpu": "1"}}}),
    "requests": template({"resources": {"requests": {"cpu": 0.5, "memory": "1G"}, "limits": {"cpu": "2000m"}}}),
    "limits of an init container": template(
        initContainers=[{"name": "i", "image": "i", "resources": {"limits": {"cpu": "1"}}}]
    ),
    "pod resources": template(resources={"limits": {"cpu": "1", "memory": "1Gi"}}),
    "pod resources and containers": template(
        {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}}, resources={"limits": {"cpu": "1"}}
    ),
    "resize policy": template({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
    "resources and resize": template(
        {
            "resources": {"requests": {"cpu": "1"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        }
    ),
    "claims": template(
        {"resources": {"claims": [{"name": "r"}]}},
        resourceClaims=[{"name": "r", "resourceClaimTemplateName": "t"}],
    ),
    "security context": template(
        {
            "securityContext": {
                "runAsUser": 0,
                "privileged": False,
                "capabilities": {"add": ["NET_ADMIN"]},
                "seccompProfile": {"type": "RuntimeDefault"},
                "procMount": "Default",
                "allowPrivilegeEscalation": False,
            }
        },
        securityContext={
            "fsGroup": 0,
            "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}],
            "supplementalGroups": [1],
        },
    ),
    "empty security context": template({"securityContext": {}}, securityContext={}),
    "selinux and windows": template(
        {"securityContext": {"seLinuxOptions": {"level": "s0"}}},
        securityContext={"fsGroupChangePolicy": "OnRootMismatch"},
    ),
    "affinity": template(
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}
                ],
            },
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": {"a": ""}},
                        "topologyKey": "kubernetes.io/hostname",
                        "matchLabelKeys": ["x"],
                    }
                ]
            },
        }
    ),
    "topology": template(
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": "z",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": "x"}},
            }
        ]
    ),
    "tolerations": template(
        tolerations=[
            {"operator": "Exists"},
            {"key": "a"},
            {"key": "b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 0},
        ]
    ),
    "service account": template(serviceAccountName="sa", automountServiceAccountToken=False, enableServiceLinks=True),
    "old service account": template(serviceAccount="sa"),
    "dns": template(
        dnsPolicy="None",
        dnsConfig={"nameservers": ["1.2.3.4"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]},
    ),
    "host aliases": template(
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a"]}], hostname="h", subdomain="s", setHostnameAsFQDN=False
    ),
    "misc": template(
        priorityClassName="system-node-critical",
        terminationGracePeriodSeconds=0,
        schedulerName="other",
        nodeSelector={"a": ""},
        runtimeClassName="r",
        imagePullSecrets=[{"name": "s"}],
        readinessGates=[{"conditionType": "example.com/x"}],
        os={"name": "linux"},
        overhead={"cpu": "1m"},
        preemptionPolicy="PreemptLowerPriority",
    ),
    "streams": template(
        {"stdin": True, "stdinOnce": False, "tty": True, "args": [""], "command": [], "workingDir": "/"}
    ),
    "mounts": template(
        {
            "volumeMounts": [
                {"name": "v", "mountPath": "/a"},
                {"name": "v", "mountPath": "/b", "readOnly": True, "subPath": "x", "mountPropagation": "None"},
                {"name": "v", "mountPath": "/c", "readOnly": True, "recursiveReadOnly": "Disabled"},
            ]
        },
        volumes=[{"name": "v", "emptyDir": {}}],
    ),
    "devices": template(
        {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    ),
    "restart rules": template(
        initContainers=[
            {
                "name": "side",
                "image": "i",
                "restartPolicy": "Always",
                "startupProbe": _HTTP,
                "lifecycle": {"preStop": _HTTP},
            }
        ]
    ),
    "scheduling gates": template(schedulingGates=[{"name": "example.com/x"}]),
    "annotations": {
        "metadata": {"labels": {"app": "x", "b": ""}, "annotations": {"a": ""}, "finalizers": ["example.com/x"]},
        "spec": template()["spec"],
    },
    **{f"volume {name}": _volume(**{name.split()[0]: source}) for name, source in VOLUMES.items()},
}
