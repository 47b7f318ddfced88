package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/refrakt-hub/refrakt-gate/policy"
)

// Exit codes. For check, exitDenied says that the gate denied the request.
const (
	exitOK     = 0
	exitFailed = 1
	exitDenied = 1
	exitUsage  = 2
)

// cli is the command line.
type cli struct {
	Serve       serveCmd       `cmd:"" default:"1" help:"Serve Envoy (the default). Settings come from the environment."`
	Config      configCmd      `cmd:"" help:"Check the environment and POLICY_FILE, print the effective settings, secrets masked, and say in words what they mean."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask the gate of the same environment whether it is ready (/readyz at TELEMETRY_ADDR). Exit status: 0 ready, 1 not ready or no answer, 2 bad settings."`
	Check       checkCmd       `cmd:"" help:"Ask a running gate about one request, as Envoy would, and print the verdict. It is charged like a real one. Exit status: 0 allowed, 1 denied, 2 error."`
	Callers     callersCmd     `cmd:"" help:"Show who uses most: the buckets that owe most, and the callers with most places in a queue with a fair share. Reads Redis with the settings of a gate, in small steps. Exit status: 0 shown, 1 not possible, 2 bad settings."`
	Show        showCmd        `cmd:"" help:"Show all buckets of one caller, how long until each has a token, and the caller's places in queues with a fair share. Reads Redis with the settings of a gate (QUEUE_URL, POLICY_FILE). Takes no token. Exit status: 0 shown, 1 not possible, 2 bad settings."`
	Reset       resetCmd       `cmd:"" help:"Fill all buckets of one caller, in Redis. Buckets that all callers share stay as they are, and so do places in queues. Exit status: 0 filled, 1 not possible, 2 bad settings."`
	Replay      replayCmd      `cmd:"" help:"Decide the requests of an access log of Envoy again, with other limits, and show how many would be refused, by policy and hour, and whose. Asks no gate and no Redis. Exit status: 0 shown, 1 not possible, 2 bad settings."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// process is what the commands use of the process: its environment and its output.
type process struct {
	env            map[string]string
	stdout, stderr io.Writer
}

// run is the whole program. It returns the exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	p := &process{env: toMap(environ), stdout: stdout, stderr: stderr}
	for _, arg := range args {
		if !utf8.ValidString(arg) { // the parser would change it without a word
			fmt.Fprintf(stderr, "refrakt-gate: the argument %q is not UTF-8\n", arg)
			return exitUsage
		}
	}
	exited, code := false, exitOK
	parser, err := kong.New(new(cli),
		kong.Name("refrakt-gate"),
		kong.Description("Envoy external authorization: rate limits and queue back-pressure."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(c int) { exited, code = true, c }),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(stderr, "refrakt-gate:", err)
		return exitUsage
	}
	k, err := parser.Parse(args)
	if exited { // --help
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "refrakt-gate: %v (see --help)\n", err)
		return exitUsage
	}
	return exitCode(k.Run(p), stderr)
}

// exit is an error with an exit code of its own. If err is nil, the message was printed
// or logged before.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if e, ok := errors.AsType[exit](err); ok {
		code = e.code
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(stderr, "refrakt-gate:", msg)
	}
	return code
}

type versionCmd struct{}

func (versionCmd) Run(p *process) error {
	fmt.Fprintf(p.stdout, "refrakt-gate %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

type serveCmd struct{}

func (serveCmd) Run(p *process) error {
	cfg, errs := loadConfig(p.env)
	if len(errs) > 0 {
		return badSettings(errs)
	}
	// By default, a write to a closed pipe ends the process (package os/signal). The end
	// of what reads the log must not end the gate.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal, the next one has its usual effect: it ends the process.
	context.AfterFunc(ctx, stop)
	return serve(ctx, cfg, p.env, p.stderr)
}

type configCmd struct {
	AsPolicies   bool `help:"Print the policies in force as a policy file (see POLICY_FILE)." xor:"form"`
	PolicySchema bool `help:"Print the JSON schema of policy files, for editors." xor:"form"`
}

// Run prints the settings, the policies or the schema. The schema needs no settings.
func (c configCmd) Run(p *process) error {
	var text []byte
	if c.PolicySchema {
		text = policy.Schema
	} else {
		cfg, errs := loadConfig(p.env)
		switch {
		case len(errs) > 0:
			return badSettings(errs)
		case !c.AsPolicies:
			return explain(p.stdout, cfg)
		}
		text = cfg.policies.YAML()
	}
	if _, err := p.stdout.Write(text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// badSettings returns an error that lists every mistake.
func badSettings(errs []error) error {
	lines := make([]string, len(errs))
	for i, err := range errs {
		lines[i] = "  " + err.Error()
	}
	return exit{exitUsage, fmt.Errorf("bad settings:\n%s", strings.Join(lines, "\n"))}
}

func toMap(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}
