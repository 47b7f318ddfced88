package authz

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/refrakt-hub/refrakt-gate/envoy"
	gatev1 "github.com/refrakt-hub/refrakt-gate/proto/refrakt/gate/v1"
)

// kind is what decisions have in common whose answers differ in numbers alone. There are
// few kinds.
type kind struct {
	policy         string
	reason         Reason
	tier           string // of the caller who was charged
	denied, shadow bool
}

func (d *Decision) kind() kind {
	return kind{d.Policy, d.Reason, d.Charged.Tier, d.Denied, d.Shadow}
}

// template is what is made ahead for the decisions of a kind.
type template struct {
	counter prometheus.Counter
	reply   *envoy.Template
}

// status is the HTTP status of a denial for this reason.
func (r Reason) status() int {
	switch r {
	case ReasonForbidden:
		return http.StatusForbidden
	case ReasonRateLimited, ReasonQueueShare:
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable
	}
}

// newTemplate returns the template of a kind. decisions has its counter.
func newTemplate(k kind, decisions *decisionCounters) *template {
	var reply envoy.Reply
	if k.denied {
		reply.Status = k.reason.status()
		reply.Body = `{"detail":` + strconv.Quote(details[k.reason]) + `}`
		reply.AddHeader("content-type", []byte("application/json"))
		if k.reason != ReasonForbidden {
			// An Envoy on the client's side does not retry then (envoyproxy/envoy#4972).
			reply.AddHeader("x-envoy-ratelimited", []byte("true"))
		}
	}
	r := new(gatev1.Decision)
	record(r, &Decision{Policy: k.policy, Reason: k.reason, Charged: Caller{Tier: k.tier}, Denied: k.denied, Shadow: k.shadow})
	addMetadata(&reply, r, constants)
	return &template{decisions.get(k.policy, verdict(k.denied), k.reason), reply.Template()}
}
