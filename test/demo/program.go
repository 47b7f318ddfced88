package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// program is what the harness of the tests needs of a test, for a program: a failure ends it, and whatever was started
// is ended in the reverse order.
type program struct {
	testing.TB // nil: what is not below is not asked for

	out      io.Writer
	ctx      context.Context
	cleanups []func()
	failed   bool
}

// failure is what Fatal panics with.
type failure struct{ text string }

// play runs story until it returns, fails or ctx ends, and returns the failure.
func play(ctx context.Context, out io.Writer, story func(*program)) (err error) {
	p := &program{out: out, ctx: ctx}
	defer func() {
		f, failed := recover().(failure)
		stopped := ctx.Err() != nil // what fails then fails for that
		p.failed = failed && !stopped
		for _, clean := range slices.Backward(p.cleanups) {
			clean()
		}
		switch {
		case stopped:
			err = nil
		case failed:
			err = errors.New(f.text)
		}
	}()
	story(p)
	return nil
}

func (p *program) Helper()                  {}
func (p *program) Context() context.Context { return p.ctx }
func (p *program) Failed() bool             { return p.failed }
func (p *program) Cleanup(f func())         { p.cleanups = append(p.cleanups, f) }
func (p *program) Name() string             { return "demo" }

// tell prints what the user shall read.
func (p *program) tell(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

func (p *program) Fatal(args ...any)                 { panic(failure{fmt.Sprint(args...)}) }
func (p *program) Fatalf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

// Logf prints what a process said, at the end of a failed story: the end of it is enough.
func (p *program) Logf(format string, args ...any) {
	const most = 20
	lines := strings.Split(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n")
	if len(lines) > most {
		lines = append([]string{lines[0], "…"}, lines[len(lines)-most:]...)
	}
	p.tell("%s", strings.Join(lines, "\n"))
}

func (p *program) Errorf(format string, args ...any) {
	p.failed = true
	p.Logf(format, args...)
}

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp("", "gate-demo")
	if err != nil {
		p.Fatalf("create folder: %v", err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
