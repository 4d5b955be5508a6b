{{/* Name of the chart, or what nameOverride says. */}}
{{- define "nodewright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of every object's name. 40 characters leave room for the suffixes below the limit of 63. */}}
{{- define "nodewright.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "nodewright.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the namespaced objects live. */}}
{{- define "nodewright.namespace" -}}
{{- default .Release.Namespace .Values.namespace.name -}}
{{- end -}}

{{/* Labels that never change in the life of a release: selectors are immutable.
     Call with (dict "root" $ "component" "agent"). */}}
{{- define "nodewright.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nodewright.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of every object. Call with (dict "root" $ "component" "agent"). */}}
{{- define "nodewright.labels" -}}
{{ include "nodewright.selectorLabels" . }}
app.kubernetes.io/part-of: nodewright
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of Pods: without versions, so that a new chart restarts only what it changes.
     Call with (dict "root" $ "component" "agent"). */}}
{{- define "nodewright.podLabels" -}}
{{ include "nodewright.selectorLabels" . }}
app.kubernetes.io/part-of: nodewright
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name of the ServiceAccount of a component. */}}
{{- define "nodewright.serviceAccountName" -}}
{{- printf "%s-%s" (include "nodewright.fullname" .root) .component -}}
{{- end -}}

{{/* Image reference. Call with (dict "root" $ "image" .Values.image.agent); a digest wins over a tag. */}}
{{- define "nodewright.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" . $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "nodewright.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* PodSecurity "restricted", for the components that only talk to the API server. */}}
{{- define "nodewright.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "nodewright.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* -v, as often as logLevel says. */}}
{{- define "nodewright.verbosity" -}}
{{- range until (int .) }}
- -v
{{- end }}
{{- end -}}

{{/* How the operator and the scheduler find the API server: by its Service, unless a value names it. They may wait for
     the ClusterIP, which the proxy makes. */}}
{{- define "nodewright.apiServerEnv" -}}
{{- with .Values.apiServer.endpoint }}
- name: NODEWRIGHT_API_SERVER
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* How host components find it: never by a ClusterIP, for that is what they make. */}}
{{- define "nodewright.hostApiServerEnv" -}}
{{- if .Values.apiServer.endpoint }}
- name: NODEWRIGHT_API_SERVER
  value: {{ .Values.apiServer.endpoint | quote }}
{{- else }}
- name: NODEWRIGHT_API_SERVER_FROM
  value: /etc/kubernetes/kubelet.conf
{{- end }}
{{- end -}}

{{- define "nodewright.hostApiServerMount" -}}
{{- if not .Values.apiServer.endpoint }}
# Only its `server` line is read: where this host's kubelet finds the API server. No credential of it is used.
- name: kubelet-kubeconfig
  mountPath: /etc/kubernetes/kubelet.conf
  readOnly: true
{{- end }}
{{- end -}}

{{- define "nodewright.hostApiServerVolume" -}}
{{- if not .Values.apiServer.endpoint }}
- name: kubelet-kubeconfig
  hostPath:
    path: {{ .Values.apiServer.kubeletKubeconfig }}
    type: File
{{- end }}
{{- end -}}

{{/* Ports of the proxy: kube-proxy's own, or others when it stays in the cluster beside ours. */}}
{{- define "nodewright.proxyHealthzPort" -}}
{{- if .Values.proxy.healthzPort -}}{{ .Values.proxy.healthzPort | int }}{{- else -}}{{ ternary 10356 10256 (ne .Values.proxy.serviceProxyName "") }}{{- end -}}
{{- end -}}

{{- define "nodewright.proxyMetricsPort" -}}
{{- if .Values.proxy.metricsPort -}}{{ .Values.proxy.metricsPort | int }}{{- else -}}{{ ternary 10349 10249 (ne .Values.proxy.serviceProxyName "") }}{{- end -}}
{{- end -}}

{{/* Where the proxy serves its metrics: to this host only, unless somebody is to scrape them. */}}
{{- define "nodewright.proxyMetricsAddress" -}}
{{- if .Values.proxy.metricsBindAddress -}}{{ .Values.proxy.metricsBindAddress }}
{{- else if .Values.monitoring.monitors.enabled -}}$(HOST_IP)
{{- else -}}127.0.0.1{{- end -}}
{{- end -}}

{{/* The agent's settings: what this chart decides, then what agent.config adds. */}}
{{- define "nodewright.agentConfig" -}}
{{- $config := dict
      "bootstrap" true
      "node_address_type" "ExternalIP"
      "omit_node_labels" (list "kubernetes.io/os" "beta.kubernetes.io/os")
      "port" (int .Values.agent.port)
      "healthz_port" (int .Values.agent.healthzPort)
      "healthz_bind_address" "127.0.0.1"
      "cluster_cidr" .Values.agent.clusterCIDR
      "cluster_domain" .Values.agent.clusterDomain
      "copy_topology_labels" true
      "host_mounts" "/proc/1/ns/mnt"
      "host_root" "/proc/1/root"
      "host_tools" "/opt/nodewright/host"
      "image_sources" .Values.agent.imageSources
      "max_pods" (int .Values.agent.maxPods)
      "node_labels" (dict "nodewright.dev/agent" "true")
      "proxy_mode" "none"
-}}
{{- toPrettyJson (mustMergeOverwrite $config (deepCopy .Values.agent.config)) -}}
{{- end -}}
