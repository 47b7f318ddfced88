package compose

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// instruction is one of a Dockerfile: its name and the rest of its line.
type instruction struct{ name, rest string }

// recipe is a Dockerfile and what it is built from.
type recipe struct {
	context      string
	instructions []instruction
}

// dockerfile reads the Dockerfile of a service, which may stand in the compose file.
func dockerfile(t *testing.T, s types.ServiceConfig) recipe {
	t.Helper()
	text := s.Build.DockerfileInline
	if text == "" {
		content, err := os.ReadFile(filepath.Join(s.Build.Context, s.Build.Dockerfile))
		if err != nil {
			t.Fatal(err)
		}
		text = string(content)
	}
	r := recipe{context: s.Build.Context}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasSuffix(line, `\`) {
			t.Fatalf("%s: lines that go on are not understood here: %s", s.Name, line)
		}
		name, rest, _ := strings.Cut(line, " ")
		r.instructions = append(r.instructions, instruction{name, rest})
	}
	return r
}

// bases are the images that it begins with.
func (r recipe) bases() []string {
	var all []string
	for _, i := range r.instructions {
		if i.name == "FROM" {
			words := strings.Fields(i.rest)
			if strings.HasPrefix(words[0], "--platform=") {
				words = words[1:]
			}
			all = append(all, words[0])
		}
	}
	return all
}

// play does in a folder what the last stage does to files of the context, which nobody but their owner may read. It
// returns the folder.
func (r recipe) play(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	dir := "/"
	inside := func(path string) string {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return filepath.Join(root, path)
	}
	last := 0
	for i, in := range r.instructions {
		if in.name == "FROM" {
			last = i
		}
	}
	for _, in := range r.instructions[last:] {
		args := strings.Fields(in.rest)
		switch {
		case in.name == "WORKDIR":
			dir = in.rest
			mkdir(t, inside(dir))
		case in.name == "COPY" && strings.HasPrefix(args[0], "--from="): // made by the build, not from the checkout
		case in.name == "COPY":
			to := args[len(args)-1]
			for _, pattern := range args[:len(args)-1] {
				info, err := os.Stat(inside(to))
				r.copy(t, pattern, inside(to), strings.HasSuffix(to, "/") || err == nil && info.IsDir())
			}
		case in.name == "RUN" && args[0] == "chmod":
			for i, arg := range args {
				if filepath.IsAbs(arg) {
					args[i] = inside(arg)
				}
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(args, " "))
			cmd.Dir = inside(dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", in.rest, err, out)
			}
		case in.name == "RUN" && args[0] == "pip": // makes files of its own
		case slices.Contains([]string{"FROM", "ARG", "LABEL", "USER", "ENV", "EXPOSE", "ENTRYPOINT", "CMD"}, in.name):
		default:
			t.Fatalf("%s %s is not understood here", in.name, in.rest)
		}
	}
	return root
}

// copy copies what pattern names in the context to the file or into the folder to, with the modes of a checkout under
// umask 077. As in a build, what is in a folder is copied, not the folder.
func (r recipe) copy(t *testing.T, pattern, to string, intoFolder bool) {
	t.Helper()
	sources, err := filepath.Glob(filepath.Join(r.context, pattern))
	if err != nil || len(sources) == 0 {
		t.Fatalf("COPY %s: nothing there: %v", pattern, err)
	}
	for _, source := range sources {
		err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(source, path)
			if err != nil {
				return err
			}
			target := filepath.Join(to, rel)
			if rel == "." && intoFolder && !entry.IsDir() {
				target = filepath.Join(to, filepath.Base(source))
			}
			if entry.IsDir() {
				mkdir(t, filepath.Dir(target))
				if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
					return err
				}
				return nil
			}
			mkdir(t, filepath.Dir(target))
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, content, 0o600)
		})
		if err != nil {
			t.Fatalf("COPY %s: %v", pattern, err)
		}
	}
}

// mkdir makes a folder as a builder does, for all to read.
func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestCheckoutUnderUmask077: what is copied from a checkout that is for its owner only can be read by the users of the
// images, and nothing is mounted from it.
func TestCheckoutUnderUmask077(t *testing.T) {
	t.Parallel()
	for name, s := range load(t).Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				t.Errorf("%s: %s is mounted from the checkout", name, v.Source)
			}
		}
		if len(s.Configs)+len(s.Secrets) > 0 {
			t.Errorf("%s: configs and secrets are mounted from the checkout", name)
		}
		if s.Build == nil {
			continue
		}
		root, files := dockerfile(t, s).play(t), 0
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			need := fs.FileMode(0o004)
			if entry.IsDir() {
				need = 0o005
			} else {
				files++
			}
			if path != root && info.Mode()&need != need {
				t.Errorf("%s: %s is %v in the image", name, strings.TrimPrefix(path, root), info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if name != "gate" && files == 0 {
			t.Errorf("%s: nothing is copied", name)
		}
	}
}
