package kubernetes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// What holds for everything that can be rendered.
func TestManifests(t *testing.T) {
	t.Parallel()
	for _, m := range renderings(t) {
		t.Run(m.dir, func(t *testing.T) {
			t.Parallel()
			for name, check := range map[string]func(*testing.T, manifests){
				"labels": checkLabels, "secrets": checkSecrets, "selectors": checkSelectors,
				"images": checkImages, "security": checkSecurity, "resources": checkResources, "ports": checkPorts,
				"volumes": checkVolumes, "settings": checkSettings, "policies": checkPolicies, "grace": checkGrace, "scrape": checkScrape,
			} {
				t.Run(name, func(t *testing.T) { check(t, m) })
			}
		})
	}
}

var rendered struct {
	once sync.Once
	all  []manifests
}

// renderings are the overlays, each without and with the components, and the chart with all values that there are.
func renderings(t *testing.T) []manifests {
	t.Helper()
	rendered.once.Do(func() { rendered.all = renderAll(t) })
	if len(rendered.all) == 0 {
		t.Fatal("nothing was rendered: another test says why")
	}
	return rendered.all
}

func renderAll(t *testing.T) (all []manifests) {
	t.Helper()
	for _, dir := range kustomizations(t) {
		all = append(all, render(t, dir))
		if strings.HasPrefix(dir, "overlays/") {
			m := render(t, withComponents(t, dir))
			m.dir = dir + " with components"
			all = append(all, m)
		}
	}
	for _, file := range valuesFiles(t) {
		values, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := install(t, string(values))
		m.dir = "chart with " + filepath.Base(file)
		all = append(all, m)
	}
	return all
}

func checkLabels(t *testing.T, m manifests) {
	for _, o := range m.objects {
		object, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/part-of"} {
			if object.GetLabels()[label] == "" {
				t.Errorf("%T %s has no label %s", o, object.GetName(), label)
			}
		}
	}
}

var (
	secretSettings = []string{
		"QUEUE_URL", "RATE_LIMIT_REDIS_URL", "PROMETHEUS_BEARER_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
	}
	withPassword = regexp.MustCompile(`://[^/\s]*@`)
)

// Secrets are referred to, never written down.
func checkSecrets(t *testing.T, m manifests) {
	if found := withPassword.Find(m.text); found != nil {
		t.Errorf("an address with a password: %s", found)
	}
	if found := all[*corev1.Secret](m); len(found) > 0 {
		t.Errorf("it renders %d Secrets", len(found))
	}
	for _, c := range all[*corev1.ConfigMap](m) {
		for _, name := range secretSettings {
			if _, ok := c.Data[name]; ok {
				t.Errorf("ConfigMap %s has %s", c.Name, name)
			}
		}
	}
	for _, c := range containers(m) {
		for _, e := range c.Env {
			if slices.Contains(secretSettings, e.Name) && (e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil) {
				t.Errorf("%s: %s is not from a Secret", c.Name, e.Name)
			}
		}
	}
}

// container is a container and the pod it is in.
type container struct {
	corev1.Container

	pod *corev1.PodSpec
}

func containers(m manifests) []container {
	var found []container
	for _, d := range all[*appsv1.Deployment](m) {
		pod := &d.Spec.Template.Spec
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			found = append(found, container{c, pod})
		}
	}
	return found
}

// Everything that selects pods selects those of the Deployment, and names ports that they have.
func checkSelectors(t *testing.T, m manifests) {
	for _, d := range all[*appsv1.Deployment](m) {
		pod := labels.Set(d.Spec.Template.Labels)
		want := func(what string, s *metav1.LabelSelector) {
			t.Helper()
			selector, err := metav1.LabelSelectorAsSelector(s)
			if err != nil || selector.Empty() || !selector.Matches(pod) {
				t.Errorf("%s (%v): it does not select the pods %v, or it selects all", what, selector, pod)
			}
		}
		want("Deployment", d.Spec.Selector)
		for _, s := range all[*corev1.Service](m) {
			want("Service", &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
			for _, p := range s.Spec.Ports {
				wantPort(t, "Service", d, p.TargetPort)
			}
		}
		for _, b := range all[*policyv1.PodDisruptionBudget](m) {
			want("PodDisruptionBudget", b.Spec.Selector)
		}
		for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			want("topologySpreadConstraint", c.LabelSelector)
		}
		for _, pm := range all[*monitoringv1.PodMonitor](m) {
			want("PodMonitor", &pm.Spec.Selector)
			for _, e := range pm.Spec.PodMetricsEndpoints {
				wantPort(t, "PodMonitor", d, intstr.FromString(*e.Port))
			}
		}
		for _, n := range all[*networkingv1.NetworkPolicy](m) {
			want("NetworkPolicy", &n.Spec.PodSelector)
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					wantPort(t, "NetworkPolicy", d, *p.Port)
				}
				for _, peer := range rule.From {
					if s, err := metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil || s.Matches(pod) {
						t.Errorf("NetworkPolicy: the peer %v is the gate itself", s)
					}
				}
			}
		}
		for _, h := range all[*autoscalingv2.HorizontalPodAutoscaler](m) {
			if ref := h.Spec.ScaleTargetRef; ref.Kind != "Deployment" || ref.Name != d.Name || d.Spec.Replicas != nil {
				t.Errorf("HorizontalPodAutoscaler of %s %s, beside Deployment %s with replicas %v", ref.Kind, ref.Name, d.Name, d.Spec.Replicas)
			}
		}
	}
}

func wantPort(t *testing.T, what string, d *appsv1.Deployment, port intstr.IntOrString) {
	t.Helper()
	pod := d.Spec.Template.Spec
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if hasPort(c, port) {
			return
		}
	}
	t.Errorf("%s: no container has the port %s", what, port.String())
}

// A port by its name is one of this container.
func hasPort(c corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
		return p.Name == port.StrVal && p.Name != "" || p.ContainerPort == port.IntVal && port.Type == intstr.Int
	})
}

func checkImages(t *testing.T, m manifests) {
	for _, c := range containers(m) {
		name := c.Image[strings.LastIndex(c.Image, "/")+1:]
		if _, tag, _ := strings.Cut(name, ":"); tag == "" || tag == "latest" {
			t.Errorf("%s: the image %q is not pinned", c.Name, c.Image)
		}
		if version, ok := strings.CutPrefix(c.Image, "envoyproxy/envoy:distroless-v"); ok {
			requirements, err := os.ReadFile(filepath.Join(e2e.Root(), "examples", "requirements-dev.txt"))
			if err != nil || !strings.Contains(string(requirements), "\nenvoy-server=="+version+"\n") {
				t.Errorf("it runs Envoy %s, the tests run another: %s %v", version, requirements, err)
			}
		}
	}
}

func checkSecurity(t *testing.T, m manifests) {
	yes := func(b *bool) bool { return b != nil && *b }
	no := func(b *bool) bool { return b != nil && !*b }
	for _, c := range containers(m) {
		pod, own := c.pod.SecurityContext, c.SecurityContext
		if pod == nil || own == nil {
			t.Errorf("%s: no security context of the pod or of its own", c.Name)
			continue
		}
		uid := pod.RunAsUser
		if own.RunAsUser != nil {
			uid = own.RunAsUser
		}
		for what, ok := range map[string]bool{
			"runAsNonRoot":             yes(pod.RunAsNonRoot) && own.RunAsNonRoot == nil && uid != nil && *uid > 0,
			"seccompProfile":           pod.SeccompProfile != nil && pod.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault && own.SeccompProfile == nil,
			"allowPrivilegeEscalation": no(own.AllowPrivilegeEscalation),
			"readOnlyRootFilesystem":   yes(own.ReadOnlyRootFilesystem),
			"privileged":               !yes(own.Privileged),
			"capabilities":             own.Capabilities != nil && slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) && own.Capabilities.Add == nil,
			"service account token":    no(c.pod.AutomountServiceAccountToken),
			"host namespaces":          !c.pod.HostNetwork && !c.pod.HostPID && !c.pod.HostIPC,
		} {
			if !ok {
				t.Errorf("%s: %s is not as it must be", c.Name, what)
			}
		}
	}
}

func checkResources(t *testing.T, m manifests) {
	for _, c := range containers(m) {
		r := c.Resources
		if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() {
			t.Errorf("%s: no request of CPU or memory, or no limit of memory", c.Name)
		}
	}
}

// Every container has probes, and they go to ports of its own by name, or of its pod by number.
func checkPorts(t *testing.T, m manifests) {
	for _, d := range all[*appsv1.Deployment](m) {
		pod := d.Spec.Template.Spec
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			if c.ReadinessProbe == nil || c.LivenessProbe == nil {
				t.Errorf("%s: readiness or liveness is not probed", c.Name)
			}
			for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				switch {
				case p == nil:
				case p.GRPC != nil:
					if !hasPort(c, intstr.FromInt32(p.GRPC.Port)) {
						t.Errorf("%s: a probe of port %d, which it does not have", c.Name, p.GRPC.Port)
					}
				case p.HTTPGet != nil && p.HTTPGet.Port.Type == intstr.Int:
					wantPort(t, c.Name, d, p.HTTPGet.Port)
				case p.HTTPGet != nil:
					if !hasPort(c, p.HTTPGet.Port) {
						t.Errorf("%s: a probe of port %s, which it does not have", c.Name, p.HTTPGet.Port.String())
					}
				}
			}
		}
	}
}

// What is mounted or taken for the environment is there; Secrets are the operator's.
func checkVolumes(t *testing.T, m manifests) {
	configs := map[string]bool{}
	for _, c := range all[*corev1.ConfigMap](m) {
		configs[c.Name] = true
	}
	for _, c := range containers(m) {
		for _, e := range c.EnvFrom {
			if !configs[e.ConfigMapRef.Name] {
				t.Errorf("%s: no ConfigMap %s", c.Name, e.ConfigMapRef.Name)
			}
		}
		for _, mount := range c.VolumeMounts {
			i := slices.IndexFunc(c.pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
			if i < 0 {
				t.Errorf("%s: no volume %s", c.Name, mount.Name)
				continue
			}
			if v := c.pod.Volumes[i]; v.ConfigMap != nil && !configs[v.ConfigMap.Name] {
				t.Errorf("%s: no ConfigMap %s", c.Name, v.ConfigMap.Name)
			}
		}
	}
}

// gate is the gate's container and its settings, with files in the place of its Secret.
func gate(t *testing.T, m manifests) (container, map[string]string) {
	t.Helper()
	list := containers(m)
	i := slices.IndexFunc(list, func(c container) bool { return c.Name == "gate" })
	if i < 0 {
		t.Fatalf("%s: no container named gate", m.dir)
	}
	settings := map[string]string{}
	for _, from := range list[i].EnvFrom {
		for _, c := range all[*corev1.ConfigMap](m) {
			if c.Name == from.ConfigMapRef.Name {
				maps.Copy(settings, c.Data)
			}
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("redis://127.0.0.1:1/0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	headers := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(headers, []byte("authorization=Bearer%20TOKEN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pki := t.TempDir()
	ca := certtest.NewCA(t)
	certtest.Mount(t, pki, ca.Pair(t, "gate"), ca)
	for name, value := range settings {
		if strings.Contains(name, "_TLS_") {
			settings[name] = filepath.Join(pki, filepath.Base(value))
		}
	}
	for _, e := range list[i].Env {
		settings[e.Name] = e.Value
		if strings.HasSuffix(e.Name, "_FILE") && e.Name != "POLICY_FILE" {
			if !slices.ContainsFunc(list[i].VolumeMounts, func(v corev1.VolumeMount) bool { return v.MountPath == filepath.Dir(e.Value) }) {
				t.Errorf("%s: nothing is mounted at %s", e.Name, e.Value)
			}
			if settings[e.Name] = secret; strings.Contains(e.Name, "HEADERS") {
				settings[e.Name] = headers
			}
		}
	}
	settings["POLICY_FILE"] = filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(settings["POLICY_FILE"], []byte(policies(t, m, list[i])), 0o600); err != nil {
		t.Fatal(err)
	}
	return list[i], settings
}

// policies is the text of the policy file that the gate finds in its container. It follows the ConfigMap, because it is
// mounted as a folder and the name of the ConfigMap does not change with what is in it.
func policies(t *testing.T, m manifests, c container) string {
	t.Helper()
	var path string
	for _, e := range c.Env {
		if e.Name == "POLICY_FILE" {
			path = e.Value
		}
	}
	for _, mount := range c.VolumeMounts {
		if mount.MountPath != filepath.Dir(path) {
			continue
		}
		if mount.SubPath != "" || !mount.ReadOnly {
			t.Errorf("%s: the policies are not mounted as a folder that is only read: %v", m.dir, mount)
		}
		for _, v := range c.pod.Volumes {
			if v.Name != mount.Name || v.ConfigMap == nil {
				continue
			}
			if v.ConfigMap.Name != "refrakt-gate-policies" {
				t.Errorf("%s: the ConfigMap %s: another file would have another name and never reach running gates", m.dir, v.ConfigMap.Name)
			}
			for _, config := range all[*corev1.ConfigMap](m) {
				if text, ok := config.Data[filepath.Base(path)]; ok && config.Name == v.ConfigMap.Name {
					return text
				}
			}
		}
	}
	t.Fatalf("%s: no ConfigMap has what POLICY_FILE=%s names", m.dir, path)
	return ""
}

// readmeYAML is the block of YAML in the README that begins like this.
func readmeYAML(t *testing.T, begin string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(folder(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n *(" + regexp.QuoteMeta(begin) + ".*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatalf("the README has no %s", begin)
	}
	return string(block[1])
}

// ownOverlay writes an overlay on top of one of deploy/kubernetes, beside which it is as far as paths go, and returns its
// folder relative to deploy/kubernetes.
func ownOverlay(t *testing.T, base, more string, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Rel(dir, folder())
	if err != nil {
		t.Fatal(err)
	}
	more = strings.ReplaceAll(more, "../../", root+"/")
	text := fmt.Sprintf("namespace: refrakt\nresources: [%s]\n%s", filepath.Join(root, base), more)
	for name, text := range merged(files, map[string]string{"kustomization.yaml": text}) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := filepath.Rel(folder(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return overlay
}

// TestOwnPolicies: what the README says an overlay needs for policies of its own.
func TestOwnPolicies(t *testing.T) {
	t.Parallel()
	const own = "policies: {api: {match: [/], buckets: [{per: ip, burst: 5, rate: 1/s}]}}\n"
	overlay := ownOverlay(t, sidecar, readmeYAML(t, "configMapGenerator:"), map[string]string{"policies.yaml": own})
	m := render(t, overlay)
	c, settings := gate(t, m)
	if got := policies(t, m, c); got != own {
		t.Errorf("the gate has the policies %q, want %q", got, own)
	}
	e2e.Config(t, settings)
}

// The policies are what the gate does by default.
func checkPolicies(t *testing.T, m manifests) {
	if len(containers(m)) == 0 {
		return
	}
	c, settings := gate(t, m)
	got, mistakes := policy.Parse([]byte(policies(t, m, c)))
	if len(mistakes) > 0 {
		t.Fatalf("mistakes in the policy file: %v", mistakes)
	}
	asShipped := map[string]string{}
	if settings["QUEUE_URL_FILE"] != "" {
		asShipped["QUEUE_URL"] = "redis://127.0.0.1:1/0"
	}
	code, preset := e2e.RunGate(t, asShipped, "config", "--as-policies")
	want, mistakes := policy.Parse([]byte(preset))
	if code != 0 || len(mistakes) > 0 {
		t.Fatalf("refrakt-gate config --as-policies: exit code %d, mistakes %v\n%s", code, mistakes, preset)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("policies:\n%s\nwant:\n%s", got.YAML(), want.YAML())
	}
	said := e2e.Config(t, settings)
	inWords := []string{
		"# run: each client IP: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute\n",
		"# run: each user: plain 10 at once, then 6 a minute; premium 30 at once, then 18 a minute\n",
		"# assistant: each client IP: plain 30 at once, then 30 a minute; premium 90 at once, then 90 a minute\n",
	}
	if settings["QUEUE_URL_FILE"] != "" {
		inWords = append(inWords, "# queue default: full when 40 jobs wait, or the oldest has waited for 10m\n")
	}
	for _, words := range inWords {
		if !strings.Contains(said, words) {
			t.Errorf("the gate does not say %q of its policies:\n%s", words, said)
		}
	}
}

// Every variable is a setting of the gate, with a value that it takes.
func checkSettings(t *testing.T, m manifests) {
	if len(containers(m)) == 0 {
		return
	}
	_, settings := gate(t, m)
	known := make(map[string]bool)
	for name := range effective(t, settings) { // fails on a value the gate refuses
		known[name] = true
	}
	for name := range settings {
		if !known[name] && !known[strings.TrimSuffix(name, "_FILE")] {
			t.Errorf("the gate knows no %s", name)
		}
	}
}

func effective(t *testing.T, settings map[string]string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(e2e.Config(t, settings)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			found[name] = value
		}
	}
	return found
}

// The kubelet kills after the grace period, so all that happens on the way down has to fit in it.
func checkGrace(t *testing.T, m manifests) {
	if len(containers(m)) == 0 {
		return
	}
	const last = 4 * time.Second // the gate's last spans, then its telemetry port
	_, settings := gate(t, m)
	config := effective(t, settings)
	need := last + duration(t, config["SHUTDOWN_DRAIN"]) + duration(t, config["SHUTDOWN_TIMEOUT"])
	var pod *corev1.PodSpec
	for _, c := range containers(m) {
		pod = c.pod
		if c.Lifecycle != nil {
			need += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		}
		if i := slices.Index(c.Command, "--timeout-graceful-shutdown"); i >= 0 {
			need += duration(t, c.Command[i+1]+"s")
		}
	}
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < need {
		t.Errorf("%v from the signal to the end, stopping can take %v", grace, need)
	}
}

// The targets' labels are those that rules and dashboard select by, and the last counts are scraped before the end.
func checkScrape(t *testing.T, m manifests) {
	rules, err := os.ReadFile(filepath.Join(e2e.Root(), "deploy", "prometheus", "rules", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pm := range all[*monitoringv1.PodMonitor](m) {
		for _, e := range pm.Spec.PodMetricsEndpoints {
			set := map[string]string{}
			for _, r := range e.RelabelConfigs {
				set[r.TargetLabel] = *r.Replacement
			}
			if !strings.Contains(string(rules), fmt.Sprintf("up{job=%q}", set["job"])) {
				t.Errorf("the alerts look for another job than %q", set["job"])
			}
			if len(containers(m)) == 0 {
				continue
			}
			_, settings := gate(t, m)
			config := effective(t, settings)
			// With a policy file, the series of a queue name it; a label of the target would hide that.
			if set["queue"] != "" || e.Path != config["PROMETHEUS_METRICS_ROUTE"] {
				t.Errorf("queue %q at %s, want none at %s", set["queue"], e.Path, config["PROMETHEUS_METRICS_ROUTE"])
			}
			if interval := duration(t, string(e.Interval)); duration(t, config["SHUTDOWN_DRAIN"]) <= interval {
				t.Errorf("a drain of %s ends before the next scrape, %v later", config["SHUTDOWN_DRAIN"], interval)
			}
			if auth := e.Authorization; auth == nil || auth.Credentials == nil || !hasToken(m, auth.Credentials) {
				t.Errorf("the token of the scrape is not the gate's: %v", auth)
			}
		}
	}
}

// hasToken says whether a Secret's key is what the gate reads as its token.
func hasToken(m manifests, key *corev1.SecretKeySelector) bool {
	for _, c := range containers(m) {
		for _, e := range c.Env {
			if e.Name == "PROMETHEUS_BEARER_TOKEN_FILE" && slices.Contains(secretFiles(c.pod, filepath.Base(e.Value)), *key) {
				return true
			}
		}
	}
	return false
}

// secretFiles are the keys of Secrets that a pod mounts as a file of this name.
func secretFiles(pod *corev1.PodSpec, file string) (keys []corev1.SecretKeySelector) {
	for _, v := range pod.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			for _, item := range source.Secret.Items {
				if item.Path == file {
					keys = append(keys, corev1.SecretKeySelector{LocalObjectReference: source.Secret.LocalObjectReference, Key: item.Key})
				}
			}
		}
	}
	return keys
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
