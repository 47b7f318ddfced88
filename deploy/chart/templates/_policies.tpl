{{/* The policy file. Without one of the user's: the same as deploy/kubernetes/base/policies.yaml, without a queue if the
gate knows no Redis of a queue. */}}
{{- define "refrakt-gate.policies" -}}
{{- if .Values.policies }}
{{- .Values.policies }}
{{- else }}
{{- $queue := hasKey .Values.secrets "QUEUE_URL" -}}
# What the gate guards, and how much; docs/policies.md has all keys. Running gates take a changed file by themselves.
tiers:
  premium: 3
{{- if $queue }}
queues:
  default:
    max_pending: 40
    max_age: 10m
{{- end }}
policies:
  run:
    match: ["/run", "/run/"]
    {{- if $queue }}
    queue: default
    becomes_job: true
    {{- end }}
    buckets:
    - {per: ip, burst: 10, rate: 6/m}
    - {per: user, burst: 10, rate: 6/m}
  assistant:
    match: ["/assistant", "/assistant/"]
    {{- if $queue }}
    queue: default
    {{- end }}
    buckets:
    - {per: ip, burst: 30, rate: 30/m}
    - {per: user, burst: 30, rate: 30/m}
{{ end }}
{{- end }}
