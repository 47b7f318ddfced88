package proctest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// log is what a process wrote. It may be read while it is written.
type log interface {
	io.Writer
	String() string
}

func newLog(tb testing.TB, name string) log {
	tb.Helper()
	if LogDir == "" {
		return &logBuffer{}
	}
	f, err := os.Create(filepath.Join(LogDir, name+".log"))
	if err != nil {
		tb.Fatalf("create log: %v", err)
	}
	tb.Cleanup(func() { f.Close() }) // after the process has ended
	return logFile{f}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

type logFile struct{ *os.File }

// String is empty for a file that can't be read.
func (l logFile) String() string {
	text, err := os.ReadFile(l.Name())
	if err != nil {
		return ""
	}
	return string(text)
}
