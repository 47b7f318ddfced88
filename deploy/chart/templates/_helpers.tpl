{{/* The name of Deployment, Service and pods. Other objects have the name of the release. */}}
{{- define "refrakt-gate.name" -}}
{{ if eq .Values.mode "sidecar" }}{{ .Values.api.name }}{{ else }}{{ .Release.Name }}{{ end }}
{{- end }}

{{/* By these labels everything selects the pods. */}}
{{- define "refrakt-gate.selector" -}}
app.kubernetes.io/name: {{ include "refrakt-gate.name" . }}
{{- end }}

{{- define "refrakt-gate.labels" -}}
{{ include "refrakt-gate.selector" . }}
{{ include "refrakt-gate.release" . }}
{{- end }}

{{/* The labels of what the gates of a release are watched with. */}}
{{- define "refrakt-gate.watchLabels" -}}
app.kubernetes.io/name: {{ .Release.Name }}
{{ include "refrakt-gate.release" . }}
{{- end }}

{{- define "refrakt-gate.release" -}}
app.kubernetes.io/part-of: refrakt
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What of the environment does not come from a Secret. */}}
{{- define "refrakt-gate.settings" -}}
{{- $own := dict "RATE_LIMIT_FALLBACK_SHARE" (divf 1 .Values.replicas | printf "%.2g") }}
{{- if eq .Values.mode "sidecar" }}
{{- $_ := set $own "GRPC_ADDR" "unix:///run/refrakt/gate.sock" }}
{{- end }}
{{- merge dict .Values.env $own | toYaml }}
{{- end }}

{{- define "refrakt-gate.envoyConfig" -}}
{{- if .Values.envoy.config }}
{{- .Values.envoy.config }}
{{- else }}
{{- .Files.Get "files/envoy.yaml" | replace "cluster_name: gate # or gate_unix" "cluster_name: gate_unix" }}
{{- end }}
{{- end }}
