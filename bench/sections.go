package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/refrakt-hub/refrakt-gate/bench/process"
	"github.com/refrakt-hub/refrakt-gate/bench/work"
)

// section is one part of the report.
type section struct {
	name, about string
	measure     func(*bench, *process.Group) error
}

// whole is what `all` measures, in this order.
var whole = []section{
	{"work", "all that the gate does, beside a gRPC service that answers at once, and others' limiters", compareWork(
		work.Allowed, work.Refused, work.ShedRun, work.ShedAssistant, work.Run, work.RunAssistant)},
	{"envoy", "through Envoy, beside a gRPC service that gives the gate's answer at once", throughEnvoy},
	{"inflight", "1 to 200 requests in flight", growInFlight},
	{"callers", "100 to 1,000,000 callers, buckets in Redis and in memory", growCallers},
	{"jobs", "an idle gate beside 0 to 100,000 waiting jobs", growJobs},
	{"gates", "1 to 4 gates on one Redis", growGates},
	{"operators", "the commands for operators, beside 1,000,000 buckets and 10,000 waiting jobs", askAsOperator},
	{"replay", "an access log with 1,000,000 requests, decided again", replayLog},
	{"python", "a limiter inside of FastAPI, and FastAPI behind Envoy and the gate", besideFastAPI},
}

// parts are sections for single kinds of work, which `all` has in one table.
var parts = []section{
	{"allowed", "callers whose buckets have tokens", compareWork(work.Allowed)},
	{"refused", "callers whose buckets are empty", compareWork(work.Refused)},
	{"shed", "requests that a full queue refuses", compareWork(work.ShedRun, work.ShedAssistant)},
	{"run", "/run beside /assistant", compareWork(work.Run, work.RunAssistant)},
}

// sectionsOf finds sections by their names.
func sectionsOf(names []string) (found []section, err error) {
	for _, name := range names {
		if name == "all" {
			found = append(found, whole...)
			continue
		}
		known := false
		for _, s := range slices.Concat(parts, whole) {
			if s.name == name {
				found, known = append(found, s), true
			}
		}
		if !known {
			return nil, fmt.Errorf("there is nothing called %q to measure: see bench --help", name)
		}
	}
	return found, nil
}

// sectionList is the list of sections for --help.
func sectionList() string {
	var b strings.Builder
	for _, s := range slices.Concat(whole, parts) {
		fmt.Fprintf(&b, "  %-9s %s\n", s.name, s.about)
	}
	return b.String()
}
