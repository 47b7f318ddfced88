package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLinks follows the links from each document to a file of the repository, and to a
// heading in that file.
func TestLinks(t *testing.T) {
	const root = "../.."
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]+))?\)`)
	for _, doc := range documents(t, root) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, heading := m[1], m[2]
			if strings.Contains(path, "://") {
				continue
			}
			file := doc
			if path != "" {
				file = filepath.Join(filepath.Dir(doc), path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s: %v", doc, m[0], err)
			} else if heading != "" && !slices.Contains(headings(t, file), heading) {
				t.Errorf("%s: %s: no such heading", doc, m[0])
			}
		}
	}
}

// documents returns the repository's Markdown files.
func documents(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(d.Name(), ".") && path != root
		switch {
		case err != nil:
			return err
		case d.IsDir() && (hidden || d.Name() == "dist" || d.Name() == "report"): // what runs write
			return filepath.SkipDir
		case !d.IsDir() && filepath.Ext(path) == ".md":
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %v found", files)
	}
	return files
}

// headings returns the anchors of a document's headings, as GitHub makes them.
func headings(t *testing.T, file string) (anchors []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	return anchors
}

// TestArchitecture looks up each file that docs/architecture.md names, and in the file
// what stands in parentheses behind its name.
func TestArchitecture(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("`([\\w./-]+/[\\w-]+\\.(?:go|lua|proto|yaml|yml))`(?:\\s+\\((`[^)]+`)\\))?").FindAllStringSubmatch(string(text), -1)
	if len(found) < 50 {
		t.Errorf("only %d files found", len(found))
	}
	for _, m := range found {
		content, err := os.ReadFile(filepath.Join(root, m[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		for name := range strings.SplitSeq(m[2], ", ") {
			if name = strings.Trim(name, "`"); !strings.Contains(string(content), name) {
				t.Errorf("%s has no %s", m[1], name)
			}
		}
	}
}
