package servers

import (
	"context"
	"fmt"
	"strings"
)

// Latency is how long calls of a command kept Redis, in microseconds.
type Latency struct{ P999, Longest float64 }

// TrackLatency begins to count calls and their latencies anew.
func (r *Redis) TrackLatency(ctx context.Context) error {
	if err := r.ConfigSet(ctx, "latency-tracking-info-percentiles", "99.9 100").Err(); err != nil {
		return fmt.Errorf("have Redis track latencies: %w", err)
	}
	if err := r.ConfigResetStat(ctx).Err(); err != nil {
		return fmt.Errorf("reset the counts of Redis: %w", err)
	}
	return nil
}

// Latencies is what INFO says of each command since TrackLatency.
func (r *Redis) Latencies(ctx context.Context) (map[string]Latency, error) {
	text, err := r.Info(ctx, "latencystats").Result()
	if err != nil {
		return nil, fmt.Errorf("ask Redis for its latencies: %w", err)
	}
	all := make(map[string]Latency)
	for line := range strings.Lines(text) {
		name, numbers, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "latency_percentiles_usec_"), ":")
		if !ok {
			continue
		}
		var l Latency
		if _, err := fmt.Sscanf(numbers, "p99.9=%f,p100=%f", &l.P999, &l.Longest); err != nil {
			return nil, fmt.Errorf("read %q: %w", line, err)
		}
		all[name] = l
	}
	return all, nil
}
