package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/refrakt-hub/refrakt-gate/internal/polltest"
	"github.com/refrakt-hub/refrakt-gate/internal/proctest"
)

// Prometheus is one running Prometheus.
type Prometheus struct {
	*proctest.Process

	Addr string
}

var prometheusLine = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// StartPrometheus starts a Prometheus with this configuration file, on a port of the kernel's choice; env adds to its
// environment. What it scraped goes with the test.
func StartPrometheus(tb testing.TB, config string, env ...string) *Prometheus {
	tb.Helper()
	p := &Prometheus{}
	p.Process = proctest.Start(tb, proctest.Command{
		Name: "prometheus", Path: SystemTool(tb, "prometheus"), Env: append([]string{"PATH=" + os.Getenv("PATH")}, env...),
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(tb.TempDir(), "data"), "--web.listen-address=127.0.0.1:0",
		},
	})
	p.Addr = p.WaitLog(tb, prometheusLine)[1]
	polltest.Until(tb, proctest.StartTimeout, "prometheus to be ready", func() error {
		_, err := p.Query("vector(1)")
		return err
	})
	return p
}

// SystemTool is the path of a program of the system's packages.
func SystemTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("%s is not installed: run `apt-get install prometheus` (or `make setup`)", name)
	}
	return path
}

// Query asks for the value of expr, a vector, now.
func (p *Prometheus) Query(expr string) (model.Vector, error) {
	var result model.Vector
	err := p.ask("query", url.Values{"query": {expr}}, &result)
	return result, err
}

// QueryRange asks for the values of expr from start to end.
func (p *Prometheus) QueryRange(expr string, start, end time.Time, step time.Duration) (model.Matrix, error) {
	var result model.Matrix
	err := p.ask("query_range", url.Values{
		"query": {expr}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {fmt.Sprint(step.Seconds())},
	}, &result)
	return result, err
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func (p *Prometheus) ask(endpoint string, form url.Values, result any) error {
	resp, err := client.PostForm("http://"+p.Addr+"/api/v1/"+endpoint, form)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer := struct {
		Error string `json:"error"`
		Data  struct {
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}{}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s answered %s: %w", p.Name, resp.Status, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("query %q: %s", form.Get("query"), answer.Error)
	}
	if err := json.Unmarshal(answer.Data.Result, result); err != nil {
		return fmt.Errorf("query %q: %w", form.Get("query"), err)
	}
	return nil
}
