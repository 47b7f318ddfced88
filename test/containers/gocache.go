package containers

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// copyBuilt copies from one build cache of Go to another what a build used. graph is what the go command wrote about it
// (-debug-actiongraph). The whole cache has gigabytes of other builds. What is not found is only built again.
func copyBuilt(graph, from, to string) error {
	text, err := os.ReadFile(graph)
	if err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	var actions []struct{ ActionID string }
	if err := json.Unmarshal(text, &actions); err != nil {
		return fmt.Errorf("read what was built: %w", err)
	}
	for _, a := range actions {
		// The first half of the name of the file that says where the result is: "v1 ACTION RESULT SIZE TIME".
		id, err := base64.RawURLEncoding.DecodeString(a.ActionID)
		if err != nil || len(id) == 0 {
			continue
		}
		name := hex.EncodeToString(id)
		entries, _ := filepath.Glob(filepath.Join(from, name[:2], name+"*-a")) // the pattern is right
		for _, entry := range entries {
			text, err := os.ReadFile(entry)
			if err != nil {
				return fmt.Errorf("read an entry of Go's build cache: %w", err)
			}
			words := strings.Fields(string(text))
			if len(words) < 3 || words[0] != "v1" {
				continue
			}
			for _, file := range []string{entry, filepath.Join(from, words[2][:2], words[2]+"-d")} {
				if err := copyInto(file, from, to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// copyInto copies a file below the folder from to the same place below the folder to.
func copyInto(file, from, to string) error {
	name, err := filepath.Rel(from, file)
	if err != nil {
		return fmt.Errorf("copy %s: %w", file, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(to, name), text, info.Mode())
	}
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	return nil
}
