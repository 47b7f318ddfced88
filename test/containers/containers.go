// Package containers runs the project's images and its docker-compose.yml on a container engine of its own, and plays on
// them what the README promises. `make containers` runs it, with the tag containers. It leaves the machine as it was.
package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// version is what images and archives are built as here.
const version = "v0.0.0-containers"

// Platforms of the images. The first one is this machine's.
func platforms() []string {
	if runtime.GOARCH == "arm64" {
		return []string{"linux/arm64", "linux/amd64"}
	}
	return []string{"linux/amd64", "linux/arm64"}
}

// Folder is what a play needs and makes.
type Folder string

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

// What prepare puts into it.
func (f Folder) project() string         { return f.path("project") }        // the repository that is cloned
func (f Folder) standIns() string        { return f.path("stand-ins") }      // what stand-ins are built from
func (f Folder) root(name string) string { return f.path(name + ".tar") }    // of a stand-in
func (f Folder) compose() string         { return f.path("docker-compose") } // the plugin
func (f Folder) archives() string        { return f.path("dist") }           // of a release

// prepare puts into the folder what a play needs and the engine does not make. Much of it comes over the network.
func prepare(ctx context.Context, cache Cache, checkout string, f Folder, withStandIns bool) error {
	if err := publish(ctx, checkout, f.project()); err != nil {
		return err
	}
	if withStandIns {
		if err := withoutDigests(f.project()); err != nil {
			return err
		}
	}
	if err := commit(ctx, f.project()); err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	part := func(to string, get func() (string, error)) {
		all.Go(func() error {
			from, err := get()
			if err != nil {
				return err
			}
			return link(from, to)
		})
	}
	part(f.compose(), func() (string, error) { return cache.compose(ctx, checkout) })
	all.Go(func() error {
		_, err := output(ctx, f.project(), nil, filepath.Join("scripts", "release.sh"), append([]string{f.archives(), version}, platforms()...)...)
		return err
	})
	if withStandIns {
		if err := f.describeStandIns(checkout); err != nil {
			return err
		}
		all.Go(func() error {
			debian, err := cache.debian(ctx)
			if err != nil {
				return err
			}
			golang, err := cache.golang(ctx, debian, checkout, platforms())
			if err != nil {
				return err
			}
			return errors.Join(link(debian, f.root("debian")), link(golang, f.root("golang")))
		})
		part(filepath.Join(f.standIns(), "wheels.tar"), func() (string, error) { return cache.wheels(ctx, checkout) })
		all.Go(func() error {
			found, err := filepath.Glob(filepath.Join(checkout, ".venv", "lib", "python3*", "site-packages", "envoy", "_bin"))
			if err != nil || len(found) == 0 {
				return errors.New("no Envoy in .venv: run `make setup`")
			}
			_, err = output(ctx, "", nil, "tar", "--create", "--file="+filepath.Join(f.standIns(), "envoy.tar"), "--directory="+found[0], "envoy")
			return err
		})
	}
	return all.Wait()
}

// describeStandIns writes how the stand-ins are built.
func (f Folder) describeStandIns(checkout string) error {
	if err := os.Mkdir(f.standIns(), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	names, err := Bases(f.project())
	if err != nil {
		return err
	}
	description, err := standInsCompose(names)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.standIns(), "compose.yaml"), []byte(description), 0o600); err != nil {
		return fmt.Errorf("describe the stand-ins: %w", err)
	}
	return copyInto(filepath.Join(checkout, "test", "containers", "standins.Dockerfile"), filepath.Join(checkout, "test", "containers"), f.standIns())
}
