package main

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parse(io.Discard, []string{"-root", "/sources", "-variant", "before,/old/gate", "-variant", "after,/new/gate,GOGC=400,A=b", "-inflight", "1,50", "run", "envoy"})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.gates) != 2 || o.gates[0].Binary != "/old/gate" || strings.Join(o.gates[1].Env, " ") != "GOGC=400 A=b" {
		t.Errorf("gates: %+v", o.gates)
	}
	if len(o.inFlight) != 2 || o.inFlight[1] != 50 || len(o.sections) != 2 || o.sections[1].name != "envoy" || o.checks {
		t.Errorf("options: %+v", o)
	}
	if o.envoy != "/sources/.venv/bin/envoy" || o.python != "/sources/bench/.venv/bin/python" || o.peer != "" {
		t.Errorf("programs: %q, %q, %q", o.envoy, o.python, o.peer)
	}
	if o, err = parse(io.Discard, []string{"-peer", "peer", "all"}); err != nil || len(o.sections) != len(whole) || len(o.gates) != 1 || !filepath.IsAbs(o.peer) {
		t.Errorf("all: %+v, %v", o, err)
	}
	if o, err = parse(io.Discard, []string{"check"}); err != nil || !o.checks {
		t.Errorf("check: %+v, %v", o, err)
	}
	for _, wrong := range [][]string{{}, {"nothing"}, {"check", "all"}, {"-inflight", "0", "all"}, {"-inflight", "x", "all"}, {"-variant", "x", "all"}, {"-variant", ",x", "all"}, {"-rounds", "0", "all"}} {
		if _, err := parse(io.Discard, wrong); err == nil {
			t.Errorf("%q: no error", wrong)
		}
	}
}

// TestHelp: every section and every flag is explained.
func TestHelp(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if _, err := parse(&b, []string{"--help"}); err == nil {
		t.Error("--help is no request to measure")
	}
	for _, s := range slices.Concat(whole, parts) {
		if !strings.Contains(b.String(), "  "+s.name+" ") {
			t.Errorf("nothing of %s", s.name)
		}
	}
}
