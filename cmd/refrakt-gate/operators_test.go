package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/backpressure"
	"github.com/refrakt-hub/refrakt-gate/backpressure/saq"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
	"github.com/refrakt-hub/refrakt-gate/quota"
)

const operatorPolicies = `
queues: {default: {max_pending: 5000, fair_share: 1}}
policies:
  run: {match: [/run], queue: default, becomes_job: true, buckets: [{per: ip, burst: 5, rate: 1/h}, {per: user, burst: 5, rate: 1/h}]}
`

// operatorCommands are run in this order.
var operatorCommands = []string{
	"show --ip 203.0.113.9 --user ann", "callers -n 200", "check --dry-run --ip 203.0.113.9 --user ann", "reset --ip 203.0.113.9",
}

// operate runs the commands for operators, as this user of Redis, and returns what fails.
func operate(t *testing.T, server *redistest.Server, userinfo string) error {
	t.Helper()
	policies := filepath.Join(t.TempDir(), "policies.yaml")
	must(t, os.WriteFile(policies, []byte(operatorPolicies), 0o600))
	environ := []string{"QUEUE_URL=unix://" + userinfo + server.Socket + "?db=0", "POLICY_FILE=" + policies}
	var errs []error
	for _, command := range operatorCommands {
		var out bytes.Buffer
		if code := run(strings.Fields(command), environ, &out, &out); code != exitOK {
			errs = append(errs, fmt.Errorf("%s: exit code %d\n%s", command, code, &out))
		}
	}
	return errors.Join(errs...)
}

// fillForOperators makes n buckets and n jobs that wait, of 50 callers, and 300 jobs that have just left. Every tenth job has
// a large payload. One request is on its way.
func fillForOperators(t *testing.T, server *redistest.Server, n int) {
	t.Helper()
	admin := server.Client(t)
	must(t, admin.FlushAll(t.Context()).Err())
	must(t, admin.ScriptFlush(t.Context()).Err())
	full := strconv.FormatInt(time.Now().Add(time.Hour).UnixNano(), 10)
	queue := saq.New("default", admin)
	admit := func() {
		a, err := queue.Admit(t.Context(), backpressure.Place{Limit: 5000, Share: 1, Caller: "ip:203.0.113.9"}, time.Minute)
		if must(t, err); !a.Admitted {
			t.Fatal("not admitted")
		}
	}
	push := func(p redis.Pipeliner, i int) {
		id, size := fmt.Sprint("saq:job:default:", i), 10
		if i%10 == 0 {
			size = 100_000
		}
		p.Set(t.Context(), id, fmt.Sprintf(`{"function": "f", "kwargs": {"x": "%s"}, "queue": "default", "key": "%d", "queued": %d, "status": "queued"}`,
			strings.Repeat("x", size), i, time.Now().UnixMilli()), 0)
		p.RPush(t.Context(), "saq:default:queued", id)
		p.ZAdd(t.Context(), "saq:default:incomplete", redis.Z{Member: id})
	}
	const left = 300
	_, err := admin.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range n {
			p.Set(t.Context(), quota.Key("run", fmt.Sprint("ip:198.51.100.", i)), full, 0)
			push(p, i)
		}
		for i := range n + left {
			caller := fmt.Sprint("ip:192.0.2.", i%50)
			p.RPush(t.Context(), "refrakt:gate:order:default", caller)
			p.ZIncrBy(t.Context(), "refrakt:gate:shares:default", 1, caller)
		}
		return nil
	})
	must(t, err)
	admit()
	_, err = admin.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		push(p, n)
		return nil
	})
	must(t, err)
	admit()
	must(t, admin.ScriptFlush(t.Context()).Err())
}

// TestOperatorRightsAreSmallest: the commands for operators work with the documented rights, and not without any one of them.
func TestOperatorRightsAreSmallest(t *testing.T) {
	server := redistest.Start(t)
	smallest(t, []*redistest.Server{server}, rights(t, " *ACL SETUSER refrakt-operator "), func() error {
		fillForOperators(t, server, 20)
		return errors.Join(operate(t, server, "refrakt-operator:PASSWORD@"), denied(t, server))
	})
}

// TestOperatorsDoNotHoldRedis: no call of the commands for operators looks at more than a bounded number of keys, members or
// elements, however many there are.
func TestOperatorsDoNotHoldRedis(t *testing.T) {
	server := redistest.Start(t)
	fillForOperators(t, server, 3000)
	calls := recordCalls(t, server, func() { must(t, operate(t, server, "")) })
	keys := func(call []string) int { return len(call) - 1 }
	after := func(word string) func([]string) int { // the number after a word, which must be there
		return func(call []string) int {
			at := slices.Index(call, word)
			if at < 0 || at+1 == len(call) {
				return 1e9
			}
			return number(t, call[at+1])
		}
	}
	span := func(call []string) int {
		from, to := number(t, call[2]), number(t, call[3])
		if (from < 0) != (to < 0) {
			return 1e9
		}
		return to - from + 1
	}
	const most = 50
	looked := map[string]struct {
		at    func(call []string) int
		bound int
	}{
		"hello": {nil, 0}, "client": {nil, 0}, "time": {nil, 0}, "get": {keys, 1}, "strlen": {keys, 1}, "llen": {keys, 1}, "lindex": {nil, 0},
		"zcard": {keys, 1}, "zscore": {nil, 0}, "zcount": {nil, 0}, "hmget": {keys, 9}, "mget": {keys, most}, "del": {keys, most},
		"scan": {after("count"), most}, "zrevrange": {span, most}, "lrange": {span, 256}, "lpos": {after("MAXLEN"), 1024},
		"getrange": {span, 4096}, "eval": {func(call []string) int { return number(t, call[2]) }, most},
		"evalsha": {func(call []string) int { return number(t, call[2]) }, most},
	}
	times := map[string]int{}
	for _, call := range calls {
		name := strings.ToLower(call[0])
		times[name]++
		switch limit, ok := looked[name]; {
		case !ok:
			t.Errorf("a command asks for %.200q", call)
		case limit.at != nil && limit.at(call) > limit.bound:
			t.Errorf("%.200q looks at more than %d", call, limit.bound)
		}
	}
	for _, name := range []string{"scan", "get", "mget", "lrange", "lpos", "zrevrange", "getrange", "evalsha", "del"} {
		if times[name] == 0 {
			t.Errorf("no command asks for %s: the test does not see all", name)
		}
	}
	delete(times, "scan")
	delete(times, "get")
	delete(times, "time")
	sum := 0
	for _, n := range times {
		sum += n
	}
	if sum > 200 {
		t.Errorf("%d calls besides those that look at all buckets in steps: %v", sum, times)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

var monitored = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)

// recordCalls returns the words of each call that Redis got while do ran, those of scripts included.
func recordCalls(t *testing.T, server *redistest.Server, do func()) (calls [][]string) {
	t.Helper()
	conn, err := net.Dial("unix", server.Socket)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write([]byte("MONITOR\r\n"))
	must(t, err)
	lines := bufio.NewReader(conn)
	_, err = lines.ReadString('\n') // OK
	must(t, err)
	const end = "that is all"
	done := make(chan error, 1)
	go func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil || strings.Contains(line, end) {
				done <- err
				return
			}
			var call []string
			for _, word := range monitored.FindAllStringSubmatch(line, -1) {
				call = append(call, word[1])
			}
			calls = append(calls, call)
		}
	}()
	do()
	must(t, server.Client(t).Echo(t.Context(), end).Err())
	must(t, <-done)
	return calls
}
