package load

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// api is a server that counts what it is asked. User 3 is refused.
type api struct {
	addr               string
	now, most, strange atomic.Int64
	mu                 sync.Mutex
	users              map[string]int
}

func startAPI(t *testing.T, latency time.Duration) *api {
	t.Helper()
	a := &api{users: make(map[string]int)}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	// The smallest window that a server can have.
	http2 := &http.HTTP2Config{MaxReceiveBufferPerConnection: firstShare, MaxReceiveBufferPerStream: firstShare}
	s := &http.Server{Protocols: protocols, HTTP2: http2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n, most := a.now.Add(1), a.most.Load(); n > most && !a.most.CompareAndSwap(most, n); most = a.most.Load() {
		}
		defer a.now.Add(-1)
		user := r.Header.Get("x-user-id")
		if r.URL.Path != "/assistant" || r.Header.Get("cf-connecting-ip") == "" {
			a.strange.Add(1)
		}
		a.mu.Lock()
		a.users[user]++
		a.mu.Unlock()
		time.Sleep(latency)
		if user == User(3) {
			w.WriteHeader(http.StatusTooManyRequests)
		}
		fmt.Fprint(w, "hello")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	a.addr = l.Addr().String()
	return a
}

// TestInFlightIsKept: the server never sees more requests at once than were asked for, and at some time as many.
func TestInFlightIsKept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		traffic         *Traffic
		conns, inFlight int
	}{
		"HTTP/2":                     {Web("/assistant", 10), 2, 7},
		"HTTP/2, fewer than conns":   {Web("/assistant", 10), 8, 3},
		"HTTP/1.1, one a connection": {Web1("/assistant", 10), 6, 6},
	} {
		a := startAPI(t, time.Millisecond)
		r, err := Load{Addrs: []string{a.addr}, Conns: tt.conns, InFlight: tt.inFlight, Traffic: tt.traffic,
			Warm: 20 * time.Millisecond, Measure: 200 * time.Millisecond}.Run(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := int(a.most.Load()); got != tt.inFlight {
			t.Errorf("%s: %d at once, want %d", name, got, tt.inFlight)
		}
		if r.Counts[Failed] > 0 || a.strange.Load() > 0 || r.Counts[Allowed] == 0 {
			t.Errorf("%s: allowed, limited, shed, failed: %v; %d requests were not as they should be", name, r.Counts, a.strange.Load())
		}
	}
}

// TestCount: exactly so many requests are sent and counted, in turn each caller as often as the others, and answers
// count as what they are.
func TestCount(t *testing.T) {
	t.Parallel()
	a := startAPI(t, 0)
	traffic := Web("/assistant", 10)
	traffic.InTurn = true
	begun, ended := 0, 0
	r, err := Load{Addrs: []string{a.addr}, Conns: 2, InFlight: 7, Traffic: traffic, Count: 1000,
		Begin: func() { begun++ }, End: func() { ended++ }}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Counts != [verdicts]int64{Allowed: 900, Limited: 100} {
		t.Errorf("allowed, limited, shed, failed: %v, want 900 100 0 0", r.Counts)
	}
	if begun != 1 || ended != 1 {
		t.Errorf("began %d times and ended %d times", begun, ended)
	}
	for caller := range 10 {
		if n := a.users[User(caller)]; n != 100 {
			t.Errorf("caller %d asked %d times, want 100", caller, n)
		}
	}
}

// TestLargeRequestsWaitForTheWindow: more requests than the server's window holds are all sent, and none too early,
// which would be the end of the connection.
func TestLargeRequestsWaitForTheWindow(t *testing.T) {
	t.Parallel()
	a := startAPI(t, 10*time.Millisecond)
	traffic := Check("assistant", 10) // to a server that knows no such path: only the numbers are of interest
	const inFlight = 200              // of 1.1 kB each
	r, err := Load{Addrs: []string{a.addr}, Conns: 1, InFlight: inFlight, Traffic: traffic, Count: 1000}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.users[""]; r.Answers() != 1000 || got != 1000 {
		t.Errorf("%d answers, and the server has seen %d requests; want 1000", r.Answers(), got)
	}
}

// TestServerThatEnds: a run with a server that goes away ends with an error.
func TestServerThatEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		l.Close()
	}()
	_, err = Load{Addrs: []string{l.Addr().String()}, Conns: 1, InFlight: 1, Traffic: Web("/", 1), Measure: 100 * time.Millisecond}.Run(t.Context())
	if err == nil {
		t.Error("no error")
	}
}
