package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Wire sends what no HTTP client would, from an address of this machine.
type Wire struct{ From, To string }

// ErrRefused says that the other end hung up, or reset the stream, without an answer.
var ErrRefused = errors.New("refused without an answer")

// HTTP1 sends this very text and reads answers until one is the last or the other end hangs up. A client that sent method
// reads them.
func (w Wire) HTTP1(tb testing.TB, method, text string) ([]Response, error) {
	tb.Helper()
	conn := w.dial(tb)
	// The other end may hang up before it has read all; the answer is there all the same.
	_, _ = io.WriteString(conn, text)
	var answers []Response
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		switch {
		case timedOut(err):
			return nil, fmt.Errorf("after %d answers: %w", len(answers), err)
		case err != nil && len(answers) == 0:
			return nil, ErrRefused
		case err != nil:
			return answers, nil
		}
		answers = append(answers, read(tb, resp))
		if resp.Close {
			return answers, nil
		}
	}
}

// HTTP2 sends one request with prior knowledge, of these very fields (":path" and the like among them, in order), and
// reads its answer. What is no valid request is sent all the same.
func (w Wire) HTTP2(tb testing.TB, fields []hpack.HeaderField) (Response, error) {
	tb.Helper()
	conn := w.dial(tb)
	var block, head bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := enc.WriteField(f); err != nil {
			tb.Fatalf("encode %v: %v", f, err)
		}
	}
	head.WriteString(http2.ClientPreface)
	out := http2.NewFramer(&head, nil)
	write := func(err error) {
		if err != nil {
			tb.Fatalf("make frames: %v", err)
		}
	}
	write(out.WriteSettings())
	const frame = 16 << 10
	first := block.Next(frame)
	write(out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0}))
	for block.Len() > 0 {
		next := block.Next(frame)
		write(out.WriteContinuation(1, block.Len() == 0, next))
	}
	_, _ = head.WriteTo(conn)

	answer := Response{Header: http.Header{}}
	in := http2.NewFramer(io.Discard, conn)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var body bytes.Buffer
	for {
		f, err := in.ReadFrame()
		switch {
		case timedOut(err):
			return Response{}, err
		case err != nil:
			return Response{}, ErrRefused
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.RegularFields() {
				answer.Header.Add(h.Name, h.Value)
			}
			if answer.Status, err = strconv.Atoi(f.PseudoValue("status")); err != nil {
				return Response{}, fmt.Errorf("status: %w", err)
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			body.Write(f.Data())
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return Response{}, ErrRefused
		}
		if ended {
			answer.Body = body.String()
			return answer, nil
		}
	}
}

func (w Wire) dial(tb testing.TB) net.Conn {
	tb.Helper()
	d := net.Dialer{Timeout: 30 * time.Second}
	if w.From != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(w.From)}
	}
	conn, err := d.DialContext(tb.Context(), "tcp", w.To)
	if err != nil {
		tb.Fatalf("connect from %s: %v", w.From, err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		tb.Fatalf("set deadline: %v", err)
	}
	return conn
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
