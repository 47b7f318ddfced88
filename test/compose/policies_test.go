package compose

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
	"github.com/refrakt-hub/refrakt-gate/policy"
	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// policyVolume is the volume in which the service policies puts the file that the gate reads.
type policyVolume struct {
	image, folder string // of the service policies, on this machine
	file          string // the file as the gate finds it
}

// startPolicies runs the service policies by hand.
func startPolicies(t *testing.T, services types.Services) policyVolume {
	t.Helper()
	s := services["policies"]
	v := policyVolume{image: dockerfile(t, s).play(t), folder: t.TempDir()}
	command := slices.Clone(s.Entrypoint)
	last := len(command) - 1
	command[last] = v.here(command[last])
	proctest.Start(t, proctest.Command{Name: "policies", Path: "/bin/sh", Args: command[1:]})

	mounted := services["gate"].Volumes[0]
	written := s.Volumes[0]
	if mounted.Type != types.VolumeTypeVolume || mounted.Source != written.Source || !mounted.ReadOnly {
		t.Fatalf("the gate mounts %+v, want the volume of policies, only for reading", mounted)
	}
	name, err := filepath.Rel(mounted.Target, *services["gate"].Environment["POLICY_FILE"])
	if err != nil || strings.Contains(name, "/") {
		t.Fatalf("POLICY_FILE=%s is not in the folder %s", *services["gate"].Environment["POLICY_FILE"], mounted.Target)
	}
	v.file = filepath.Join(v.folder, name)
	polltest.Until(t, 20*time.Second, "the service policies to be healthy", func() error { return v.healthy(t, s) })
	return v
}

// here has the paths of the container on this machine.
func (v policyVolume) here(text string) string {
	return strings.NewReplacer("/preset.yaml", v.image+"/preset.yaml", "/policies/", v.folder+"/").Replace(text)
}

func (v policyVolume) healthy(t *testing.T, s types.ServiceConfig) error {
	t.Helper()
	test := s
	check := *s.HealthCheck
	check.Test = slices.Clone(check.Test)
	for i := range check.Test {
		check.Test[i] = v.here(check.Test[i])
	}
	test.HealthCheck = &check
	return healthCheck(t, test, nil)
}

// gateSettings are the gate's own settings, with the policy file on this machine.
func gateSettings(t *testing.T, services types.Services) map[string]string {
	t.Helper()
	settings := environment(services["gate"])
	settings["POLICY_FILE"] = startPolicies(t, services).file
	return settings
}

// The policies are what the gate does by default.
func TestPolicies(t *testing.T) {
	t.Parallel()
	settings := gateSettings(t, load(t).Services)
	got, mistakes := policy.Read(settings["POLICY_FILE"])
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	code, preset := e2e.RunGate(t, map[string]string{"QUEUE_URL": settings["QUEUE_URL"]}, "config", "--as-policies")
	want, wrong := policy.Parse([]byte(preset))
	if code != 0 || len(wrong) > 0 {
		t.Fatalf("refrakt-gate config --as-policies: exit code %d, mistakes %v\n%s", code, wrong, preset)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("policies:\n%s\nwant:\n%s", got.YAML(), want.YAML())
	}
}
