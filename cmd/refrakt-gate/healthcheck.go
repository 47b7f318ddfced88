package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/refrakt-hub/refrakt-gate/telemetry"
)

// healthcheckCmd asks the gate with the settings in the environment whether it is ready.
// It is the health check of a container.
type healthcheckCmd struct {
	Timeout time.Duration `default:"2s" help:"How long to wait for the answer."`
}

// maxReadiness is how many bytes of an answer are read.
const maxReadiness = 64 << 10

// Run implements the command. It exits with 1 if the gate is not ready or does not answer.
func (c healthcheckCmd) Run(p *process) error {
	cfg, errs := loadConfig(withoutPolicies(p.env))
	if len(errs) > 0 {
		return badSettings(errs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	answer, err := askReady(ctx, cfg)
	if err != nil {
		return fmt.Errorf("ask the gate at %s: %w", cfg.Telemetry.Addr, err)
	}
	for _, line := range answer.Degraded {
		fmt.Fprintln(p.stdout, "degraded:", line)
	}
	if !answer.Ready {
		return errors.New("not ready: " + strings.Join(answer.Reasons, "; "))
	}
	fmt.Fprintln(p.stdout, "ready")
	return nil
}

// askReady asks the gate with these settings whether it is ready.
func askReady(ctx context.Context, cfg Config) (telemetry.ReadyAnswer, error) {
	var answer telemetry.ReadyAnswer
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if path, ok := strings.CutPrefix(cfg.Telemetry.Addr, "unix://"); ok {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", dialable(cfg.Telemetry.Addr))
	}}
	address := "http://gate" + telemetry.ReadyRoute // the host does not matter: DialContext knows where to connect
	if cfg.TLS.TelemetryCertFile != "" {
		address = "https://gate" + telemetry.ReadyRoute
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if err := expect(transport.TLSClientConfig, cfg.TLS.telemetry()); err != nil {
			return answer, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return answer, err
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the address, which is in no setting
		}
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReadiness)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%s, which is no answer of a gate: %w", resp.Status, err)
	}
	// Another program may listen there. A gate says it by the status and in the body.
	answer.Ready = answer.Ready && resp.StatusCode == http.StatusOK
	if !answer.Ready && len(answer.Reasons) == 0 {
		return answer, fmt.Errorf("%s, which is no answer of a gate", resp.Status)
	}
	return answer, nil
}
