package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

// Reply is an answer to Envoy. Its text must be valid UTF-8, so it must not hold anything
// that a client sent: a reply that can't be marshalled is a gRPC error, and Envoy may let
// the request pass then. The zero value lets the request pass.
type Reply struct {
	// Status is the HTTP status of a denial, such as 429; 0 lets the request pass.
	Status int
	// Body is the body of a denial.
	Body string
	// Headers go to the client, with the denial or with the answer of the API.
	Headers []Header
	// Metadata becomes the dynamic metadata in the namespace envoy.filters.http.ext_authz.
	Metadata *structpb.Struct
}

// Header is one response header. It replaces a header of the same name.
type Header struct{ Name, Value string }

// Response returns the reply in the form that Envoy reads.
func (r Reply) Response() *authv3.CheckResponse {
	if r.Status == 0 {
		return &authv3.CheckResponse{
			Status:          &status.Status{Code: int32(codes.OK)},
			HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{ResponseHeadersToAdd: options(r.Headers)}},
			DynamicMetadata: r.Metadata,
		}
	}
	return &authv3.CheckResponse{
		// Code 0 would let the request pass. Some releases took all other codes than this
		// one for errors (envoyproxy/envoy#34951).
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(r.Status)},
			Headers: options(r.Headers),
			Body:    r.Body,
		}},
		DynamicMetadata: r.Metadata,
	}
}

func options(headers []Header) []*corev3.HeaderValueOption {
	opts := make([]*corev3.HeaderValueOption, 0, len(headers))
	for _, h := range headers {
		opts = append(opts, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			// The default appends, and differed between releases.
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return opts
}
