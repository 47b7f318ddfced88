package quota

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestDry: a dry Take says what a Take says, and writes nothing. A token takes an hour, so
// the time between the two does not count.
func TestDry(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	cluster := NewCluster(clusterClient(t, redistest.StartCluster(t, 3, false)), slog.New(slog.DiscardHandler))
	for name, store := range map[string]interface {
		Store
		Peeker
	}{"server": NewRedis(rdb, ""), "cluster": cluster} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			limits := Limits(3, 1, time.Hour, 1, 2)
			const slack = time.Minute
			for i := range 200 {
				var req Request
				for b := range 1 + random.IntN(3) {
					req.Buckets = append(req.Buckets, Bucket{
						Key: Key("run", fmt.Sprint("{", i%5, "}", b)), Limit: limits[random.IntN(2)], MaxDebt: MaxDebt(limits),
					})
				}
				before, err := store.Peek(t.Context(), req.Buckets)
				if err != nil {
					t.Fatal(err)
				}
				dry, err := Dry{store}.Take(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				after, err := store.Peek(t.Context(), req.Buckets)
				if err != nil || !slices.EqualFunc(before, after, func(a, b time.Duration) bool { return a >= b && a-b < slack }) {
					t.Fatalf("step %d: the debts were %v, and are %v after a dry Take: %v", i, before, after, err)
				}
				charged, err := store.Take(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				near := dry.Debt >= charged.Debt-slack && dry.Debt <= charged.Debt+slack
				if dry.Taken != charged.Taken || dry.Limit != charged.Limit || !near {
					t.Fatalf("step %d: a dry Take says %+v, a real one %+v", i, dry, charged)
				}
			}
		})
	}
}

func TestDebtOf(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 5)
	for value, want := range map[string]time.Duration{
		"":                    0,
		"full":                0,
		"123":                 0,
		"1800000000000000005": 0,
		"1800000001001000005": time.Second,
		"1799999999000000000": 0,
		"x800000001001000005": 0,
	} {
		if got := debtOf(value, now); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}
