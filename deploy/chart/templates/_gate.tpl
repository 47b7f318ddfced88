{{/* The gate's container. */}}
{{- define "refrakt-gate.container" -}}
{{- $sidecar := eq .Values.mode "sidecar" -}}
name: gate
image: {{ print .Values.image.repository ":" (.Values.image.tag | default (print "v" .Chart.AppVersion)) | quote }}
{{- if $sidecar }}
restartPolicy: Always
{{- end }}
envFrom:
- configMapRef: {name: {{ include "refrakt-gate.instance" . | quote }}}
env:
- {name: POLICY_FILE, value: /etc/refrakt-gate-policies/policies.yaml}
{{- range $name, $ref := .Values.secrets }}
- {name: {{ $name }}_FILE, value: /etc/refrakt-gate/{{ include "refrakt-gate.secretFile" $name }}}
{{- end }}
ports:
{{- if not $sidecar }}
- {name: grpc, containerPort: 9001}
{{- end }}
- {name: telemetry, containerPort: 9464}
{{- $http := dict "port" "telemetry" }}
{{- if (get .Values.env "TELEMETRY_TLS_CERT_FILE") }}
{{- $_ := set $http "scheme" "HTTPS" }}
{{- end }}
# Until Redis answered and the queue was looked at once. Longer than STARTUP_TIMEOUT, so that the gate itself ends with a
# reason in its log.
startupProbe:
  httpGet: {{ merge (dict "path" "/readyz") $http | toJson }}
  periodSeconds: 1
  failureThreshold: {{ get .Values.env "STARTUP_TIMEOUT" | default "30s" | include "refrakt-gate.seconds" | float64 | ceil | add 10 }}
readinessProbe:
  {{- if or $sidecar (get .Values.env "GRPC_TLS_CERT_FILE") }}
  # The kubelet can't ask over a unix socket, nor over TLS.
  httpGet: {{ merge (dict "path" "/readyz") $http | toJson }}
  {{- else }}
  # What Envoy's health check asks too. It stays ready while Redis is away: else all replicas would leave at once.
  grpc: {port: 9001, service: envoy.service.auth.v3.Authorization}
  {{- end }}
  periodSeconds: 2
  failureThreshold: 2
# Looks at nothing but the process: a restart mends no Redis.
livenessProbe:
  httpGet: {{ merge (dict "path" "/healthz") $http | toJson }}
  periodSeconds: 10
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
{{- if .Values.secrets }}
- {name: secrets, mountPath: /etc/refrakt-gate, readOnly: true}
{{- end }}
# As a folder: a file that is mounted by subPath never changes.
- {name: policies, mountPath: /etc/refrakt-gate-policies, readOnly: true}
{{- if $sidecar }}
- {name: gate-socket, mountPath: /run/refrakt}
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The file of a secret setting. */}}
{{- define "refrakt-gate.secretFile" -}}
{{ . | lower | replace "_" "-" }}
{{- end }}
