package kubernetes

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

func chartFolder() string { return filepath.Join(e2e.Root(), "deploy", "chart") }

// loadChart is the chart as users get it: packed, and read from the package. Links in its folder are files there.
var loadChart = sync.OnceValues(func() (*chartv2.Chart, error) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Helm says of each link that it follows it
	dir, err := os.MkdirTemp("", "chart")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := loader.LoadDir(chartFolder())
	if err != nil {
		return nil, err
	}
	file, err := chartutil.Save(c, dir)
	if err != nil {
		return nil, err
	}
	return loader.LoadFile(file)
})

func theChart(t *testing.T) *chartv2.Chart {
	t.Helper()
	c, err := loadChart()
	if err != nil {
		t.Fatalf("load deploy/chart: %v", err)
	}
	return c
}

// valuesFile is an example of the chart.
func valuesFile(example string) string {
	return filepath.Join(chartFolder(), "examples", example+".yaml")
}

// valuesFiles are the examples of the chart and the values in testdata.
func valuesFiles(t *testing.T) (files []string) {
	t.Helper()
	for _, dir := range []string{filepath.Join(chartFolder(), "examples"), "testdata"} {
		found, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no values in %s: %v", dir, err)
		}
		files = append(files, found...)
	}
	return files
}

// release is what `helm install NAME --namespace refrakt` makes of values in YAML. notes is what it prints at the end.
func release(t *testing.T, name, values string) (text []byte, notes string, err error) {
	t.Helper()
	return releaseOf(t, theChart(t), name, "refrakt", values)
}

// releaseOf is the same for any chart and namespace.
func releaseOf(t *testing.T, c *chartv2.Chart, name, namespace, values string) (text []byte, notes string, err error) {
	t.Helper()
	var given map[string]any
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		t.Fatalf("values: %v\n%s", err, values)
	}
	if err := chartutil.ProcessDependencies(c, given); err != nil {
		return nil, "", err
	}
	all, err := util.ToRenderValues(c, given, common.ReleaseOptions{Name: name, Namespace: namespace, IsInstall: true, Revision: 1}, nil)
	if err != nil {
		return nil, "", err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(t.Context(), c, all)
	if err != nil {
		return nil, "", err
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(file, "NOTES.txt") {
			notes = files[file]
		} else if content := strings.TrimSpace(files[file]); content != "" && filepath.Ext(file) == ".yaml" {
			text = fmt.Appendf(text, "---\n%s\n", content)
		}
	}
	return text, notes, nil
}

// install is what the chart renders to, decoded strictly.
func install(t *testing.T, values string) manifests {
	t.Helper()
	text, _, err := release(t, "refrakt-gate", values)
	if err != nil {
		t.Fatalf("render the chart: %v", err)
	}
	return decode(t, "chart", text)
}
