package quota

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestScan: a scan finds each bucket that owes something, with its debt, and nothing else.
func TestScan(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	nodes := clusterClient(t, redistest.StartCluster(t, 3, false))
	limit := Limits(3, 1, time.Hour, 1)[0]
	for name, tt := range map[string]struct {
		store interface {
			Store
			Scan(ctx context.Context, see func(Owing)) error
		}
		set func(key, value string) error
	}{
		"server":  {NewRedis(rdb, ""), func(k, v string) error { return rdb.Set(t.Context(), k, v, 0).Err() }},
		"cluster": {NewCluster(nodes, slog.New(slog.DiscardHandler)), func(k, v string) error { return nodes.Set(t.Context(), k, v, 0).Err() }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{Key("run", "ip:full"), "refrakt:gate:order:default", "saq:default:queued"} {
				if err := tt.set(key, "100"); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string]int64{} // tokens owed
			for i := range 1000 {      // several steps
				bucket, subject := []string{"run", "run/mine"}[i%2], fmt.Sprint("ip:2001:db8:", i%700, "::/64")
				r, err := tt.store.Take(t.Context(), Request{Buckets: []Bucket{{Key: Key(bucket, subject), Limit: limit}}})
				if err != nil || !r.Taken {
					t.Fatalf("take: %+v, %v", r, err)
				}
				want[bucket+" "+subject]++
			}
			got := map[string]int64{}
			err := tt.store.Scan(t.Context(), func(o Owing) {
				got[o.Bucket+" "+o.Subject] = int64((o.Debt + limit.Interval/2) / limit.Interval)
			})
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%d buckets were found, want %d: %v", len(got), len(want), err)
			}
		})
	}
}
