package envoy

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

// Reply is an answer to Envoy. Its text must be valid UTF-8, so it must not hold anything
// that a client sent: a reply that can't be marshalled is a gRPC error, and Envoy may let
// the request pass then. The zero value lets the request pass. [Reply.Response] and
// [Reply.Answer] bring a reply into the two forms that can be sent.
type Reply struct {
	// Status is the HTTP status of a denial, such as 429; 0 lets the request pass.
	Status int
	// Body is the body of a denial.
	Body string

	base     *Template // nil: none
	headers  []header
	values   []byte // of the headers, one after the other
	metadata []datum
}

// header is one response header. Its value is values[from:to].
type header struct {
	name     string
	from, to int
}

// datum is one field of the dynamic metadata, of one of three kinds.
type datum struct {
	key    string
	kind   datumKind
	text   string
	number float64
	flag   bool
}

type datumKind int

const (
	isText datumKind = iota
	isNumber
	isFlag
)

// Reset makes r the reply that t was made from. If t is nil, that is the zero value. r keeps
// its memory.
func (r *Reply) Reset(t *Template) {
	r.Status, r.Body, r.base = 0, "", t
	if t != nil {
		r.Status, r.Body = t.reply.Status, t.reply.Body
	}
	r.headers, r.values, r.metadata = r.headers[:0], r.values[:0], r.metadata[:0]
}

// AddHeader adds a header that goes to the client, with the denial or with the answer of
// the API. It replaces a header of the same name. The value is copied.
func (r *Reply) AddHeader(name string, value []byte) {
	from := len(r.values)
	r.values = append(r.values, value...)
	r.headers = append(r.headers, header{name, from, len(r.values)})
}

// AddText adds a text to the dynamic metadata in the namespace
// envoy.filters.http.ext_authz.
func (r *Reply) AddText(key, value string) {
	r.metadata = append(r.metadata, datum{key: key, kind: isText, text: value})
}

// AddNumber adds a number to the dynamic metadata.
func (r *Reply) AddNumber(key string, value float64) {
	r.metadata = append(r.metadata, datum{key: key, kind: isNumber, number: value})
}

// AddFlag adds a truth value to the dynamic metadata.
func (r *Reply) AddFlag(key string, value bool) {
	r.metadata = append(r.metadata, datum{key: key, kind: isFlag, flag: value})
}

// Response returns the reply as a message of the generated code.
func (r *Reply) Response() *authv3.CheckResponse {
	if r.Status == 0 {
		return &authv3.CheckResponse{
			Status:          &status.Status{Code: int32(codes.OK)},
			HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{ResponseHeadersToAdd: r.options()}},
			DynamicMetadata: r.dynamicMetadata(),
		}
	}
	return &authv3.CheckResponse{
		// Code 0 would let the request pass. Some releases took all other codes than this
		// one for errors (envoyproxy/envoy#34951).
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(r.Status)},
			Headers: r.options(),
			Body:    r.Body,
		}},
		DynamicMetadata: r.dynamicMetadata(),
	}
}

// overwrite is what Envoy does with a header. The default appends, and differed between
// releases.
const overwrite = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD

func (r *Reply) options() (opts []*corev3.HeaderValueOption) {
	if r.base != nil {
		opts = r.base.reply.options()
	}
	for _, h := range r.headers {
		opts = append(opts, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.name, Value: string(r.values[h.from:h.to])},
			AppendAction: overwrite,
		})
	}
	return opts
}

func (r *Reply) dynamicMetadata() *structpb.Struct {
	var all []datum
	if r.base != nil {
		all = r.base.reply.metadata
	}
	all = slices.Concat(all, r.metadata)
	if len(all) == 0 {
		return nil
	}
	fields := make(map[string]*structpb.Value, len(all))
	for _, d := range all {
		switch d.kind {
		case isFlag:
			fields[d.key] = structpb.NewBoolValue(d.flag)
		case isNumber:
			fields[d.key] = structpb.NewNumberValue(d.number)
		default:
			fields[d.key] = structpb.NewStringValue(d.text)
		}
	}
	return &structpb.Struct{Fields: fields}
}
