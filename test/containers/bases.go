package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// imageFiles are the files that name base images.
var imageFiles = []string{"Dockerfile", "examples/api/Dockerfile", "docker-compose.yml"}

var (
	// base finds `FROM [--platform=…] NAME` and `image: NAME`.
	base   = regexp.MustCompile(`(?m)^\s*(?:FROM\s+(?:--\S+\s+)?|(?:- )?image:\s+)(\S+)`)
	digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}`)
)

// Bases lists the base images that the project in dir names.
func Bases(dir string) (names []string, err error) {
	for _, file := range imageFiles {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return nil, fmt.Errorf("read the base images: %w", err)
		}
		for _, m := range base.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// withoutDigests removes the digests from the files that name base images: an image made here has none.
func withoutDigests(dir string) error {
	for _, file := range imageFiles {
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the base images: %w", err)
		}
		if err := os.WriteFile(path, digest.ReplaceAll(text, nil), 0o600); err != nil {
			return fmt.Errorf("remove digests: %w", err)
		}
	}
	return nil
}

// standIns says which target of standins.Dockerfile stands for which image.
var standIns = map[string]string{
	"docker.io/library/golang":          "golang",
	"docker.io/library/python":          "python",
	"docker.io/library/redis":           "redis",
	"docker.io/envoyproxy/envoy":        "envoy",
	"docker.io/prom/prometheus":         "prometheus",
	"gcr.io/distroless/static-debian12": "distroless",
}

// canonical is the whole name of an image.
func canonical(name string) string {
	switch first, _, found := strings.Cut(name, "/"); {
	case !found:
		return "docker.io/library/" + name
	case !strings.Contains(first, "."):
		return "docker.io/" + name
	}
	return name
}

// standIn is the target of standins.Dockerfile that stands for an image.
func standIn(name string) (string, error) {
	repository, tag, _ := strings.Cut(canonical(name), ":")
	target := standIns[repository]
	if target == "" || tag == "" {
		return "", fmt.Errorf("no stand-in for the base image %s: add one to standIns in bases.go and to standins.Dockerfile", name)
	}
	return target, nil
}

// standInsCompose is a compose file that builds a stand-in for each of the bases.
func standInsCompose(bases []string) (string, error) {
	var b strings.Builder
	fmt.Fprintln(&b, "name: stand-ins\nservices:")
	for _, name := range bases {
		target, err := standIn(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  %s:\n    image: %s\n    build: {context: ., dockerfile: standins.Dockerfile, target: %s}\n", target, name, target)
	}
	return b.String(), nil
}
