package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2conn drives one HTTP/2 connection from a single goroutine.
type h2conn struct {
	run     *run
	traffic *Traffic
	callers *callers
	varying template

	framer *http2.Framer
	out    *bufio.Writer
	decode *hpack.Decoder
	// first enters the header fields into the server's table; again refers to that table.
	first, again []byte

	nextID   uint32
	streams  map[uint32]*stream
	free     []*stream
	window   int // of the connection, for what we send
	owed     int // requests that wait for the window
	received int // bytes since the last window update of ours

	status, grpcStatus string // of the header block that is being decoded
	result             Result
}

type stream struct {
	begun        time.Time
	status, grpc string
	data         []byte
}

const (
	bufferSize = 256 << 10
	ourWindow  = 1 << 30 // for what the server sends on a connection
	firstShare = 65535   // what HTTP/2 lets us send at first
)

func driveH2(r *run, t *Traffic, c net.Conn, inFlight int, who *callers) (Result, error) {
	h := &h2conn{
		run: r, traffic: t, callers: who, varying: newTemplate(t.varying), nextID: 1,
		streams: make(map[uint32]*stream), window: firstShare, out: bufio.NewWriterSize(c, bufferSize),
	}
	h.framer = http2.NewFramer(h.out, bufio.NewReaderSize(flushing{c, h.out}, bufferSize))
	h.framer.SetReuseFrames()
	h.decode = hpack.NewDecoder(4096, h.header)
	h.first, h.again = encodeTwice(t.fields)
	err := h.drive(c, inFlight)
	return h.result, err
}

func (h *h2conn) drive(c net.Conn, inFlight int) error {
	if err := c.SetDeadline(h.run.until); err != nil {
		return err
	}
	if _, err := h.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}); err != nil {
		return err
	}
	if err := h.framer.WriteWindowUpdate(0, ourWindow); err != nil {
		return err
	}
	for range inFlight {
		if err := h.next(); err != nil {
			return err
		}
	}
	for len(h.streams) > 0 || h.owed > 0 {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		if err := h.handle(f); err != nil {
			return err
		}
	}
	return h.out.Flush()
}

func (h *h2conn) handle(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return h.headers(f)
	case *http2.DataFrame:
		return h.data(f)
	case *http2.RSTStreamFrame:
		if s := h.streams[f.StreamID]; s != nil {
			s.status = "reset"
			return h.finish(f.StreamID, s)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			h.window += int(f.Increment)
			return h.sendOwed()
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return h.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.framer.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("server said go away: %v %s", f.ErrCode, f.DebugData())
	}
	return nil
}

func (h *h2conn) headers(f *http2.HeadersFrame) error {
	if !f.HeadersEnded() {
		return fmt.Errorf("headers of stream %d come in several frames", f.StreamID)
	}
	h.status, h.grpcStatus = "", ""
	if _, err := h.decode.Write(f.HeaderBlockFragment()); err != nil {
		return fmt.Errorf("decode headers: %w", err)
	}
	s := h.streams[f.StreamID]
	if s == nil {
		return fmt.Errorf("headers on unknown stream %d", f.StreamID)
	}
	if h.status != "" {
		s.status = h.status
	}
	if h.grpcStatus != "" {
		s.grpc = h.grpcStatus
	}
	if f.StreamEnded() {
		return h.finish(f.StreamID, s)
	}
	return nil
}

func (h *h2conn) header(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		h.status = f.Value
	case "grpc-status":
		h.grpcStatus = f.Value
	}
}

func (h *h2conn) data(f *http2.DataFrame) error {
	if h.received += int(f.Length); h.received > ourWindow/2 {
		if err := h.framer.WriteWindowUpdate(0, uint32(h.received)); err != nil {
			return err
		}
		h.received = 0
	}
	s := h.streams[f.StreamID]
	if s == nil {
		return fmt.Errorf("data on unknown stream %d", f.StreamID)
	}
	s.data = append(s.data, f.Data()...)
	if f.StreamEnded() {
		return h.finish(f.StreamID, s)
	}
	return nil
}

// finish counts the answer and sends the next request.
func (h *h2conn) finish(id uint32, s *stream) error {
	if h.run.measuring() {
		h.result.add(h.traffic.judge(s.status, s.grpc, s.data), time.Since(s.begun))
	}
	delete(h.streams, id)
	h.free = append(h.free, s)
	return h.next()
}

// next sends one more request, if there is to be one.
func (h *h2conn) next() error {
	if !h.run.another() {
		return nil
	}
	h.owed++
	return h.sendOwed()
}

// sendOwed sends the requests for which the connection's window has room.
func (h *h2conn) sendOwed() error {
	size := 0
	if h.traffic.varyingIsBody {
		size = len(h.varying.block)
	}
	for h.owed > 0 && h.window >= size {
		h.owed--
		h.window -= size
		if err := h.send(); err != nil {
			return err
		}
	}
	return nil
}

func (h *h2conn) send() error {
	id, s := h.nextID, h.stream()
	h.nextID += 2
	h.streams[id] = s
	block := h.again
	if id == 1 {
		block = h.first
	}
	h.varying.patch(h.callers.next())
	if h.traffic.varyingIsBody {
		if err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}); err != nil {
			return err
		}
		return h.framer.WriteData(id, true, h.varying.block)
	}
	block = append(slices.Clip(block), h.varying.block...)
	return h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
}

// stream is a stream that begins now, a used one if there is one.
func (h *h2conn) stream() *stream {
	s := &stream{}
	if n := len(h.free); n > 0 {
		s, h.free = h.free[n-1], h.free[:n-1]
	}
	*s = stream{begun: time.Now(), data: s.data[:0]}
	return s
}

// flushing writes out what is buffered before it waits for more to read, so that the requests that follow from one
// read leave in one write.
type flushing struct {
	net.Conn

	out *bufio.Writer
}

func (f flushing) Read(p []byte) (int, error) {
	if err := f.out.Flush(); err != nil {
		return 0, err
	}
	return f.Conn.Read(p)
}

// encodeTwice returns a header block that fills the server's table, and the one for all requests after that.
func encodeTwice(fields []hpack.HeaderField) (first, again []byte) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	write := func() []byte {
		buf.Reset()
		for _, f := range fields {
			_ = enc.WriteField(f) // a bytes.Buffer does not fail
		}
		return bytes.Clone(buf.Bytes())
	}
	return write(), write()
}
