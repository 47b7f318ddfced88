package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
)

// verdict is the answer to a request, as check prints it.
type verdict struct {
	Allowed  bool              `json:"allowed"`
	Status   int               `json:"status"` // of the gate's own answer; 200 if the request may pass
	Body     string            `json:"body"`
	Metadata map[string]any    `json:"metadata"`
	Headers  map[string]string `json:"headers"` // for the client
	// Buckets are those that the request would be charged to. They are known to a dry run alone.
	Buckets []shownBucket `json:"buckets,omitzero"`
}

func verdictOf(resp *authv3.CheckResponse) verdict {
	v := verdict{
		Allowed: resp.GetStatus().GetCode() == int32(codes.OK), Status: http.StatusOK,
		Metadata: resp.GetDynamicMetadata().AsMap(), Headers: make(map[string]string),
	}
	headers := resp.GetOkResponse().GetResponseHeadersToAdd()
	if !v.Allowed {
		denied := resp.GetDeniedResponse()
		v.Status, v.Body, headers = int(denied.GetStatus().GetCode()), denied.GetBody(), denied.GetHeaders()
	}
	for _, h := range headers {
		v.Headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return v
}

// report prints a verdict. A denial is an error without a message.
func (c checkCmd) report(w io.Writer, v verdict) error {
	write := v.print
	if c.Output == "json" {
		write = func(w io.Writer) error { return printJSON(w, v) }
	}
	if err := write(w); err != nil {
		return exit{exitUsage, err}
	}
	if !v.Allowed {
		return exit{code: exitDenied}
	}
	return nil
}

// print prints the verdict for people.
func (v verdict) print(w io.Writer) error {
	if v.Allowed {
		fmt.Fprintln(w, "allowed")
	} else {
		fmt.Fprintf(w, "denied %d %s\n", v.Status, v.Body)
	}
	for _, key := range slices.Sorted(maps.Keys(v.Metadata)) {
		fmt.Fprintf(w, "  %s: %v\n", key, v.Metadata[key])
	}
	for _, name := range slices.Sorted(maps.Keys(v.Headers)) {
		fmt.Fprintf(w, "  header %s: %s\n", name, v.Headers[name])
	}
	if len(v.Buckets) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printBuckets(w, v.Buckets)
}
