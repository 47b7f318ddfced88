package quota

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

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
		set, hash func(key, value string) error
	}{
		"server": {
			NewRedis(rdb, ""), func(k, v string) error { return rdb.Set(t.Context(), k, v, 0).Err() },
			func(k, v string) error { return rdb.HSet(t.Context(), k, v, v).Err() },
		},
		"cluster": {
			NewCluster(nodes, slog.New(slog.DiscardHandler)), func(k, v string) error { return nodes.Set(t.Context(), k, v, 0).Err() },
			func(k, v string) error { return nodes.HSet(t.Context(), k, v, v).Err() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{Key("run", "ip:full"), "refrakt:gate:order:default", "saq:default:queued"} {
				if err := tt.set(key, "100"); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.hash(Key("run", "ip:hash"), "100"); err != nil {
				t.Fatal(err)
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

// TestScanFails: an error that is not about the type of one key ends a scan.
func TestScanFails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	if err := admin.Set(t.Context(), Key("run", "ip:192.0.2.1"), "100", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, right := range []string{"get", "time"} { // one right is missing
		user := "no" + right
		if err := admin.Do(t.Context(), "ACL", "SETUSER", user, "on", "nopass", "~*", "+@all", "-"+right).Err(); err != nil {
			t.Fatal(err)
		}
		rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket, Username: user, Password: "x"})
		err := NewRedis(rdb, "").Scan(t.Context(), func(Owing) { t.Error("a full bucket was seen") })
		if err == nil || !strings.Contains(err.Error(), "read buckets: NOPERM") {
			t.Errorf("without the right to %s: %v", right, err)
		}
		if err := rdb.Close(); err != nil {
			t.Error(err)
		}
	}
}
