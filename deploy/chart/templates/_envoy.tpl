{{/* The container of a sidecar's Envoy. */}}
{{- define "refrakt-gate.envoy" -}}
name: envoy
image: {{ .Values.envoy.image | quote }}
restartPolicy: Always
command: [/usr/local/bin/envoy]
args:
- --config-path
- /etc/envoy/envoy.yaml
# Hot restart wants shared memory, and there is only ever one.
- --disable-hot-restart
- --concurrency
- "2"
- --log-level
- warn
# Merged into the above: a port for the kubelet. The admin port would do, but it stays on loopback because it can also stop
# Envoy; and the ingress port would put the probes among the clients' requests. It answers once all clusters are warm and
# the workers run.
- --config-yaml
- |
  static_resources:
    listeners:
    - name: status
      address: {socket_address: {address: 0.0.0.0, port_value: 9902}}
      filter_chains:
      - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            stat_prefix: status
            http_filters:
            - name: envoy.filters.http.health_check
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
                pass_through_mode: false
                headers: [{name: ":path", string_match: {exact: /ready}}]
            - name: envoy.filters.http.router
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
            route_config: {name: status}
ports:
- {name: http, containerPort: 8080}
- {name: status, containerPort: 9902}
startupProbe:
  httpGet: {path: /ready, port: status}
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet: {path: /ready, port: status}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /ready, port: status}
  periodSeconds: 10
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.envoy.resources | nindent 2 }}
securityContext:
  runAsUser: 101 # the socket is open to fsGroup
  runAsGroup: 101
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
- {name: envoy, mountPath: /etc/envoy, readOnly: true}
- {name: gate-socket, mountPath: /run/refrakt, readOnly: true}
{{- end }}
