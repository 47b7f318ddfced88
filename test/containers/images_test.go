//go:build containers

package containers

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image is what an engine says of one.
type image struct {
	Architecture string
	Size         int64
	Config       struct {
		User   string
		Labels map[string]string
	}
}

func (s *story) image(t *testing.T, name string) (i image) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.sh(t, "docker image inspect --format '{{json .}}' "+name)), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// images builds the gate for each platform as a release does, and compares it with the archive.
func (s *story) images(t *testing.T) {
	revision := s.sh(t, "git rev-parse HEAD")
	for n, platform := range platforms() {
		_, arch, _ := strings.Cut(platform, "/")
		name := "refrakt-gate:" + arch
		t.Run(platform, func(t *testing.T) {
			s.build(t, platform, fmt.Sprintf("image: %q, build: {context: %q, platforms: [%s], args: {VERSION: %s, REVISION: %s}}",
				name, s.clone(), platform, version, revision))
			i := s.image(t, name)
			if i.Architecture != arch || i.Config.User != "65532:65532" {
				t.Errorf("it is for %s, and its user is %s", i.Architecture, i.Config.User)
			}
			s.labels(t, i, "Dockerfile", version, revision)
			binary := filepath.Join(s.home, arch)
			s.sh(t, fmt.Sprintf("id=$(docker create --platform %s %s); docker cp $id:/usr/local/bin/refrakt-gate %s; docker rm $id", platform, name, binary))
			s.sameAsArchive(t, platform, binary)
			if n == 0 { // of this machine
				out := s.sh(t, "docker run --rm --read-only --cap-drop ALL --entrypoint refrakt-gate "+name+" version")
				if !strings.HasPrefix(out, "refrakt-gate "+version+" ") {
					t.Errorf("refrakt-gate version: %s", out)
				}
			}
			t.Logf("%.1f MB", float64(i.Size)/1e6)
		})
	}
	t.Run("API", func(t *testing.T) {
		i := s.image(t, "refrakt-gate-api")
		if i.Config.User != "65534:65534" {
			t.Errorf("its user is %s", i.Config.User)
		}
		s.labels(t, i, "examples/api/Dockerfile", "dev", "unknown")
		t.Logf("%.1f MB", float64(i.Size)/1e6)
	})
}

// build builds one image for a platform.
func (s *story) build(t *testing.T, platform, service string) {
	t.Helper()
	file := filepath.Join(s.home, "image.yml")
	write := func(service string) {
		if err := os.WriteFile(file, []byte("services: {"+service+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// An image that was made here is for one platform only.
	if _, err := os.Stat(s.standIns()); err == nil {
		write("distroless: {build: {platforms: [" + platform + "]}}")
		s.sh(t, "docker compose -f "+filepath.Join(s.standIns(), "compose.yaml")+" -f "+file+" build distroless")
	}
	write("gate: {" + service + "}")
	s.sh(t, "docker compose -f "+file+" build")
}

// labels compares an image's labels with what its Dockerfile and the build say.
func (s *story) labels(t *testing.T, i image, dockerfile, version, revision string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.clone(), dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	found := base.FindAllStringSubmatch(string(text), -1)
	want := map[string]string{
		"source": Source, "documentation": Source + "#readme", "licenses": "Apache-2.0",
		"version": version, "revision": revision, "base.name": canonical(found[len(found)-1][1]),
	}
	for name, value := range want {
		if got := i.Config.Labels["org.opencontainers.image."+name]; got != value {
			t.Errorf("label %s: got %q, want %q", name, got, value)
		}
	}
	for _, name := range []string{"title", "description"} {
		if i.Config.Labels["org.opencontainers.image."+name] == "" {
			t.Errorf("no label %s", name)
		}
	}
}

// sameAsArchive compares a binary with the one of a release's archive, whose SBOM is then that of the image too.
func (s *story) sameAsArchive(t *testing.T, platform, binary string) {
	t.Helper()
	name := "refrakt-gate_" + version + "_" + strings.ReplaceAll(platform, "/", "_")
	s.sh(t, fmt.Sprintf("tar --extract --to-stdout --file %s/%s.tar.gz %s/refrakt-gate >%s/archived", s.archives(), name, name, s.home))
	want, err := os.ReadFile(filepath.Join(s.home, "archived"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the binary (%d bytes) is not the archive's (%d bytes)", len(got), len(want))
	}
	program, err := elf.NewFile(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	machine := map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64}[platform]
	if program.Machine != machine {
		t.Errorf("it is for %v, want %v", program.Machine, machine)
	}
}
