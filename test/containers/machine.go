package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Machine is what a container engine changes on a machine, by name, in lines.
type Machine map[string][]string

// firewalls print all rules. They are asked for if they are installed.
var firewalls = [][]string{
	{"iptables-save"}, {"ip6tables-save"}, {"iptables-legacy-save"}, {"ip6tables-legacy-save"},
	{"nft", "--stateless", "list", "ruleset"},
}

// noise is what differs between two listings of the same rules: comments with the time, and counters of packets.
var noise = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`)

// engineFiles are files that engines make.
var engineFiles = []string{
	"/etc/docker/*", "/etc/containerd/*", "/opt/*", "/run/docker*", "/run/containerd/*", "/run/netns/*",
	"/var/lib/docker", "/var/lib/containerd", "/sys/class/net/*",
}

// Look records the state of this machine. The engine's own folders and control groups have mark in their names.
func Look(mark string) (Machine, error) {
	m := Machine{}
	for _, command := range firewalls {
		path, err := exec.LookPath(command[0])
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		out, err := exec.Command(path, command[1:]...).Output() //nolint:gosec // from the list above
		if err != nil {
			return nil, fmt.Errorf("list firewall rules: %s: %w", strings.Join(command, " "), err)
		}
		m[command[0]] = lines(noise.ReplaceAllString(string(out), ""))
	}
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read whether packets are forwarded: %w", err)
		}
		m[file] = lines(string(text))
	}
	for _, pattern := range engineFiles {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for files: %w", err)
		}
		m[pattern] = found
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	m["mounts"] = lines(string(mounts))
	if m["control groups"], err = marked("/sys/fs/cgroup", mark); err != nil {
		return nil, fmt.Errorf("look for control groups: %w", err)
	}
	m["processes"] = processes(mark)
	return m, nil
}

// Changes says how after differs from before.
func Changes(before, after Machine) (changes []string) {
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, line := range without(after[name], before[name]) {
			changes = append(changes, name+": new: "+line)
		}
		for _, line := range without(before[name], after[name]) {
			changes = append(changes, name+": gone: "+line)
		}
	}
	return changes
}

// without returns the lines that are not among others.
func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(line string) bool { return slices.Contains(others, line) })
}

func lines(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return line == "" })
}

// marked lists the folders below dir whose name has mark in it.
func marked(dir, mark string) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since the folder was read
			return nil
		case err != nil:
			return err
		case entry.IsDir() && strings.Contains(entry.Name(), mark):
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// processes lists those that have mark in their command line.
func processes(mark string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, file := range files {
		text, err := os.ReadFile(file)
		if command := strings.ReplaceAll(string(text), "\x00", " "); err == nil && strings.Contains(command, mark) {
			found = append(found, filepath.Base(filepath.Dir(file))+" "+command)
		}
	}
	return found
}
