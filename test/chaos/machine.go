package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/refrakt-hub/refrakt-gate/test/e2e"
)

// What the machine does is measured beside what the gate does, so that neither is taken for the other.

// watchStalls looks how late this process gets a processor. The function it returns ends that and gives the longest
// time for which it got none.
func watchStalls(tb testing.TB) func() time.Duration {
	tb.Helper()
	const tick = 5 * time.Millisecond
	ctx, stop := context.WithCancel(tb.Context())
	var watching sync.WaitGroup
	var longest time.Duration
	watching.Go(func() {
		for ctx.Err() == nil {
			begin := time.Now()
			wait(ctx, tick)
			longest = max(longest, time.Since(begin)-tick)
		}
	})
	end := func() time.Duration { stop(); watching.Wait(); return longest }
	tb.Cleanup(func() { end() })
	return end
}

// Pairs are Checks in pairs, one of a caller with tokens and one of a request that is not guarded. The gate asks nobody
// about the second, so how long it takes is the machine's doing.
type Pairs struct {
	Over          time.Duration // what counts as slow
	N             int
	Slow, Machine int           // of the first and of the second kind, how many were slow
	Longest       time.Duration // that one of the second kind took
}

// asksNobody compares Checks of a gate. The function it returns ends that.
func asksNobody(tb testing.TB, gate *e2e.Gate, over time.Duration) func() Pairs {
	tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+gate.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(tb, err)
	client := authv3.NewAuthorizationClient(conn)
	ctx, stop := context.WithCancel(tb.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	pairs := Pairs{Over: over}
	for range 4 {
		asking.Go(func() {
			for ; ctx.Err() == nil; wait(ctx, 10*time.Millisecond) {
				guarded, ok := checkTakes(ctx, client, "/assistant")
				unguarded, alsoOK := checkTakes(ctx, client, "/not-guarded")
				if !ok || !alsoOK {
					continue // the gate is gone
				}
				mu.Lock()
				pairs.N++
				pairs.Longest = max(pairs.Longest, unguarded)
				if guarded > over {
					pairs.Slow++
				}
				if unguarded > over {
					pairs.Machine++
				}
				mu.Unlock()
			}
		})
	}
	end := func() Pairs { stop(); asking.Wait(); _ = conn.Close(); return pairs }
	tb.Cleanup(func() { end() })
	return end
}

// checkTakes is how long a Check of a premium caller takes.
func checkTakes(ctx context.Context, client authv3.AuthorizationClient, path string) (time.Duration, bool) {
	// A Check that was begun is also ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	begin := time.Now()
	_, err := client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Path: path, Headers: map[string]string{"cf-connecting-ip": "192.0.2.77", "x-ratelimit-tier": "premium"},
		}},
	}})
	return time.Since(begin), err == nil
}
