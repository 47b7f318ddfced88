package envoy

import (
	"context"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// Call is one Check in its wire form. It is used again for another Check, so nothing that
// was read from it may be used after the Check has been answered.
type Call struct {
	wire   mem.Buffer // nil: no CheckRequest has come
	reader reader
}

// Read reads the CheckRequest. The text of the request is that of the call. An error is a
// gRPC status: the CheckRequest is no protobuf.
func (c *Call) Read() (Request, error) {
	r, err := c.reader.read(c.wire.ReadOnlyData())
	if err != nil {
		return Request{}, status.Error(codes.Internal, err.Error())
	}
	return r, nil
}

// hold takes the CheckRequest in data. The buffers of data are free after that, so the
// call has a reference of its own.
func (c *Call) hold(data mem.BufferSlice) {
	c.release()
	c.wire = data.MaterializeToBuffer(mem.DefaultBufferPool())
}

// release makes the call ready for another Check.
func (c *Call) release() {
	c.reader.reset()
	if c.wire != nil {
		c.wire.Free()
		c.wire = nil
	}
}

var calls = sync.Pool{New: func() any { return new(Call) }}

// Checker answers Checks in their wire form.
type Checker interface {
	Answer(ctx context.Context, c *Call) (*Answer, error)
}

// Register adds the service of Envoy's external authorization to a server that has the
// [Codec]. It is what the generated code registers, but for the form of the messages.
func Register(s grpc.ServiceRegistrar, c Checker) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: (*Checker)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: check}},
		Metadata:    authv3.Authorization_ServiceDesc.Metadata,
	}, c)
}

// check has the parameters of a handler of gRPC.
func check(srv any, ctx context.Context, receive func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // see above
	c := calls.Get().(*Call)
	defer func() {
		c.release()
		calls.Put(c)
	}()
	if err := receive(c); err != nil {
		return nil, err
	}
	if intercept == nil {
		return srv.(Checker).Answer(ctx, c)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: authv3.Authorization_Check_FullMethodName}
	return intercept(ctx, c, info, func(ctx context.Context, c any) (any, error) {
		return srv.(Checker).Answer(ctx, c.(*Call))
	})
}

// Codec is the codec for a server on which [Register] was called. It hands over Checks and
// their answers as they are on the wire. All other messages are those of the generated
// code.
type Codec struct{ generated encoding.CodecV2 }

// NewCodec returns a codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

var _ encoding.CodecV2 = Codec{}

// Name implements [encoding.CodecV2].
func (c Codec) Name() string { return c.generated.Name() }

// Unmarshal implements [encoding.CodecV2].
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if call, ok := v.(*Call); ok {
		call.hold(data)
		return nil
	}
	return c.generated.Unmarshal(data, v)
}

// Marshal implements [encoding.CodecV2].
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if a, ok := v.(*Answer); ok {
		return a.slice[:], nil
	}
	return c.generated.Marshal(v)
}
