package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// heapGrowth is how far the heap may grow until garbage is collected. By default Go
	// lets it double. The gate keeps so little that it would collect a hundred times a
	// second under load.
	heapGrowth = 24 << 20
	// restingHeap is about what the gate keeps besides buckets.
	restingHeap = 8 << 20
)

// limitMemory makes garbage collections rare, and keeps the process below the memory limit
// of its container. buckets is how many bytes are set aside for buckets in this process.
// Where the operator sets the variables of the Go runtime, GOGC or GOMEMLIMIT, these hold.
func limitMemory(buckets int64, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(int(heapGrowth * 100 / (buckets + restingHeap)))
	}
	limit, err := memlimit.Set()
	switch {
	case err != nil: // without a container there may be no cgroup
		log.Debug("the memory limit of the container is not known", "error", err)
	default:
		log.Debug("the Go runtime has a memory limit", "bytes", limit)
	}
}
