// Package release checks what `make release` puts together, for this machine's platform only.
package release

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

const version = "v1.2.3-test"

func TestRelease(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dist")
	run(t, e2e.Root(), filepath.Join("scripts", "release.sh"), dir, version, runtime.GOOS+"/"+runtime.GOARCH)
	name := strings.Join([]string{"refrakt-gate", version, runtime.GOOS, runtime.GOARCH}, "_")

	sums := run(t, dir, "sha256sum", "--check", "--strict", "SHA256SUMS")
	for _, file := range []string{name + ".tar.gz", name + ".cdx.json"} {
		if !strings.Contains(sums, file+": OK\n") {
			t.Errorf("no checksum of %s: %s", file, sums)
		}
	}

	files := unpack(t, filepath.Join(dir, name+".tar.gz"))
	for _, file := range []string{"refrakt-gate", "LICENSE", "README.md", "CHANGELOG.md"} {
		if files[name+"/"+file] == "" {
			t.Errorf("the archive has no %s: %v", file, files)
		}
	}
	binary := files[name+"/refrakt-gate"]
	if got := run(t, dir, binary, "version"); !strings.HasPrefix(got, "refrakt-gate "+version+" ") {
		t.Errorf("the binary says that it is %s", got)
	}
	if got := run(t, dir, "go", "version", "-m", binary); !strings.Contains(got, "CGO_ENABLED=0") || !strings.Contains(got, "-trimpath=true") {
		t.Errorf("it was built otherwise:\n%s", got)
	}

	var bom struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Component struct {
				Name, Version string
			}
		}
		Components []struct {
			Name, Version string
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatalf("read the SBOM: %v", err)
	}
	if c := bom.Metadata.Component; bom.Format != "CycloneDX" || c.Name != "github.com/refrakt-hub/refrakt-gate" || c.Version != version {
		t.Errorf("the SBOM is %s, of %s %s", bom.Format, c.Name, c.Version)
	}
	// What the binary is made of, by the go command itself.
	modules := map[string]string{}
	for line := range strings.Lines(run(t, dir, "go", "version", "-m", binary)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			modules[f[1]] = f[2]
		}
	}
	if modules["github.com/redis/go-redis/v9"] == "" {
		t.Fatalf("go-redis is not in the binary: %v", modules)
	}
	for _, c := range bom.Components {
		if want, ok := modules[c.Name]; ok && want == c.Version {
			delete(modules, c.Name)
		}
	}
	if len(modules) > 0 {
		t.Errorf("the SBOM lacks %v", modules)
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s: %v\n%s%s", name, err, out, &stderr)
	}
	return string(out)
}

// unpack returns where the files of an archive were put, by name.
func unpack(t *testing.T, archive string) map[string]string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir, files := t.TempDir(), map[string]string{}
	for r := tar.NewReader(gz); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		path := filepath.Join(dir, filepath.Base(header.Name))
		text, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(path, text, header.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = path
	}
}
