{{/* By this name the objects of a release are told from those of another one. A chart that has this one twice, under two
aliases, has them in one release. */}}
{{- define "refrakt-gate.instance" -}}
{{ .Release.Name }}{{ if ne .Chart.Name "refrakt-gate" }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{/* The name of Deployment, Service and what else is about the pods. Other objects have the name of the instance. */}}
{{- define "refrakt-gate.name" -}}
{{ if eq .Values.mode "sidecar" }}{{ .Values.api.name }}{{ else }}{{ include "refrakt-gate.instance" . }}{{ end }}
{{- end }}

{{/* By these labels everything selects the pods. They can't be changed later. */}}
{{- define "refrakt-gate.selector" -}}
app.kubernetes.io/name: {{ ternary .Values.api.name "refrakt-gate" (eq .Values.mode "sidecar") | quote }}
app.kubernetes.io/instance: {{ include "refrakt-gate.instance" . | quote }}
{{- end }}

{{- define "refrakt-gate.podLabels" -}}
{{ include "refrakt-gate.selector" . }}
app.kubernetes.io/part-of: refrakt
{{- end }}

{{/* Other settings are for other pods. Policies are not: running gates take them. */}}
{{- define "refrakt-gate.podAnnotations" -}}
checksum/settings: {{ include "refrakt-gate.settings" . | sha256sum | quote }}
{{- if eq .Values.mode "sidecar" }}
checksum/envoy: {{ include "refrakt-gate.envoyConfig" . | sha256sum | quote }}
{{- end }}
{{- end }}

{{- define "refrakt-gate.labels" -}}
{{ include "refrakt-gate.podLabels" . }}
{{ include "refrakt-gate.release" . }}
{{- end }}

{{/* The labels of what the gates of a release are watched with. */}}
{{- define "refrakt-gate.watchLabels" -}}
app.kubernetes.io/name: refrakt-gate
app.kubernetes.io/instance: {{ include "refrakt-gate.instance" . | quote }}
app.kubernetes.io/part-of: refrakt
{{ include "refrakt-gate.release" . }}
{{- end }}

{{- define "refrakt-gate.release" -}}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ print .Chart.Name "-" .Chart.Version | quote }}
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
{{- include "refrakt-gate.file" (list . "files/envoy.yaml") | replace "cluster_name: gate # or gate_unix" "cluster_name: gate_unix" }}
{{- end }}
{{- end }}

{{/* A file of the chart: (list . path). In the repository it is a link, which not every tool follows. Git without links has
the path of the target in its place, which is one line without an end. */}}
{{- define "refrakt-gate.file" -}}
{{- $text := (index . 0).Files.Get (index . 1) }}
{{- if not (contains "\n" $text) }}
{{- fail (print "this copy of the chart has no " (index . 1) ": what made it does not follow symbolic links. Take the chart from ghcr.io, or from `helm package`") }}
{{- end }}
{{- $text }}
{{- end }}

{{/* A duration in the form of the gate's settings, in seconds: 2.5 or 2500ms. */}}
{{- define "refrakt-gate.seconds" -}}
{{- $zero := toDate "2006" "2000" }}
{{- $end := mustDateModify (regexReplaceAll "^[0-9.]+$" . "${0}s") $zero }}
{{- ($end.Sub $zero).Seconds }}
{{- end }}
