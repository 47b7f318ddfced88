package certs

import (
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// register adds the metrics of the port's certificate. They have its beginning and its
// end, so that an alert can compute which part of its life is left, be it a day or a year.
func (f *Files) register(reg prometheus.Registerer) {
	gauge := func(name, help string, at func(*x509.Certificate) time.Time) {
		promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"port": f.cfg.Port},
		}, func() float64 { return float64(at(f.leaf()).Unix()) })
	}
	gauge("refrakt_gate_certificate_not_before_timestamp_seconds", "When the certificate in force on the port became valid.",
		func(c *x509.Certificate) time.Time { return c.NotBefore })
	gauge("refrakt_gate_certificate_not_after_timestamp_seconds", "When the certificate in force on the port becomes invalid.",
		func(c *x509.Certificate) time.Time { return c.NotAfter })
}
