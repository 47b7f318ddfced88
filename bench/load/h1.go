package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// driveH1 drives one HTTP/1.1 connection, with one request at a time.
func driveH1(r *run, t *Traffic, c net.Conn, inFlight int, who *callers) (result Result, err error) {
	if inFlight != 1 {
		return result, fmt.Errorf("HTTP/1.1 has 1 request in flight per connection, not %d", inFlight)
	}
	if err := c.SetDeadline(r.until); err != nil {
		return result, err
	}
	request := newTemplate(t.varying)
	in := bufio.NewReader(c)
	for r.another() {
		request.patch(who.next())
		begun := time.Now()
		if _, err := c.Write(request.block); err != nil {
			return result, fmt.Errorf("send request: %w", err)
		}
		status, err := readResponse(in)
		if err != nil {
			return result, fmt.Errorf("read response: %w", err)
		}
		if r.measuring() {
			result.add(t.judge(status, "", nil), time.Since(begun))
		}
	}
	return result, nil
}

// readResponse returns the status of a response with a content-length, or without a body.
func readResponse(in *bufio.Reader) (status string, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < len("HTTP/1.1 200") {
		return "", fmt.Errorf("no status line: %q", line)
	}
	status = string(line[9:12])
	length := 0
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return "", err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			_, err := io.CopyN(io.Discard, in, int64(length))
			return status, err
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return "", err
			}
		}
	}
}
