package load

import (
	"encoding/binary"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

func grpcBody(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

func denied(code typev3.StatusCode) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: 7},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Body: "no", Status: &typev3.HttpStatus{Code: code},
		}},
	}
}

// TestVerdicts: answers count as what they say, and whatever is not understood has failed.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	allowed := &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}
	for name, tt := range map[string]struct {
		got, want Verdict
	}{
		"allowed":             {judgeCheck("200", "0", grpcBody(t, allowed)), Allowed},
		"429":                 {judgeCheck("200", "0", grpcBody(t, denied(429))), Limited},
		"503":                 {judgeCheck("200", "0", grpcBody(t, denied(503))), Shed},
		"403":                 {judgeCheck("200", "0", grpcBody(t, denied(403))), Failed},
		"gRPC error":          {judgeCheck("200", "4", grpcBody(t, allowed)), Failed},
		"no gRPC status":      {judgeCheck("200", "", grpcBody(t, allowed)), Failed},
		"reset":               {judgeCheck("reset", "0", grpcBody(t, allowed)), Failed},
		"no message":          {judgeCheck("200", "0", nil), Failed},
		"empty message":       {judgeCheck("200", "0", grpcBody(t, &authv3.CheckResponse{})), Failed},
		"no protobuf":         {judgeCheck("200", "0", []byte{0, 0, 0, 0, 1, 0xff}), Failed},
		"rate limit: OK":      {judgeRateLimit("200", "0", grpcBody(t, &rlv3.RateLimitResponse{OverallCode: rlv3.RateLimitResponse_OK})), Allowed},
		"rate limit: over":    {judgeRateLimit("200", "0", grpcBody(t, &rlv3.RateLimitResponse{OverallCode: rlv3.RateLimitResponse_OVER_LIMIT})), Limited},
		"rate limit: neither": {judgeRateLimit("200", "0", grpcBody(t, &rlv3.RateLimitResponse{})), Failed},
		"web: 202":            {judgeWeb("202", "", nil), Allowed},
		"web: 429":            {judgeWeb("429", "", nil), Limited},
		"web: 503":            {judgeWeb("503", "", nil), Shed},
		"web: 404":            {judgeWeb("404", "", nil), Failed},
		"web: nothing":        {judgeWeb("", "", nil), Failed},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
}
