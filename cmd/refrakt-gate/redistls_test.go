package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/refrakt-hub/refrakt-gate/internal/certtest"
	"github.com/refrakt-hub/refrakt-gate/internal/redistest"
)

// TestRedisTLS connects to real servers by what the URL says of TLS.
func TestRedisTLS(t *testing.T) {
	t.Parallel()
	ca, otherCA := certtest.NewCA(t), certtest.NewCA(t)
	dir := t.TempDir()
	file := func(name string, content ...[]byte) string {
		path := filepath.Join(dir, name)
		var all []byte
		for _, c := range content {
			all = append(all, c...)
		}
		if err := os.WriteFile(path, all, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, otherFile := file("ca.crt", ca.Cert), file("other.crt", otherCA.Cert)
	client := ca.Pair(t, "gate")
	certFile, keyFile, both := file("tls.crt", client.Cert), file("tls.key", client.Key), file("both.pem", client.Cert, client.Key)

	named := redistest.TLS{Pair: ca.Pair(t, "127.0.0.1"), CA: ca}
	_, plain := redistest.StartTLS(t, named)
	_, wrong := redistest.StartTLS(t, redistest.TLS{Pair: ca.Pair(t, "redis.internal"), CA: ca})
	_, mutual := redistest.StartTLS(t, named, "--tls-auth-clients", "yes")
	cluster := redistest.StartTLSCluster(t, named)
	sentinel := redistest.StartTLSSentinel(t, named)

	const fine = ""
	trusted := "?ssl_ca_certs=" + caFile
	for name, tt := range map[string]struct{ url, want string }{
		"CA unknown":            {plain, "certificate signed by unknown authority"},
		"CA given":              {plain + trusted, fine},
		"CA in the URL":         {plain + "?ssl_ca_data=" + url.QueryEscape(string(ca.Cert)), fine},
		"another CA":            {plain + "?ssl_ca_certs=" + otherFile, "certificate signed by unknown authority"},
		"required":              {plain + "?ssl_cert_reqs=required", "certificate signed by unknown authority"},
		"optional":              {plain + "?ssl_cert_reqs=optional", "certificate signed by unknown authority"},
		"required, CA given":    {plain + trusted + "&ssl_cert_reqs=required&ssl_check_hostname=True", fine},
		"not verified":          {plain + "?ssl_cert_reqs=none", fine},
		"skip_verify":           {plain + "?skip_verify=true", fine},
		"do not skip_verify":    {plain + "?skip_verify=false", "certificate signed by unknown authority"},
		"wrong name":            {wrong + trusted, "cannot validate certificate for 127.0.0.1"},
		"any name":              {wrong + trusted + "&ssl_check_hostname=false", fine},
		"any name, another CA":  {wrong + "?ssl_check_hostname=false&ssl_ca_certs=" + otherFile, "certificate signed by unknown authority"},
		"any name, CA unknown":  {wrong + "?ssl_check_hostname=false", "certificate signed by unknown authority"},
		"wrong name, none":      {wrong + "?ssl_cert_reqs=none", fine},
		"no certificate":        {mutual + trusted, "certificate required"},
		"certificate":           {mutual + trusted + "&ssl_certfile=" + certFile + "&ssl_keyfile=" + keyFile, fine},
		"certificate with key":  {mutual + trusted + "&ssl_certfile=" + both, fine},
		"cluster, CA unknown":   {cluster + "?addr=" + cluster, "certificate signed by unknown authority"},
		"cluster, CA given":     {cluster + trusted + "&addr=" + cluster, fine},
		"cluster, skip_verify":  {cluster + "?skip_verify=1&addr=" + cluster, fine},
		"cluster, not verified": {cluster + "?ssl_cert_reqs=none&addr=" + cluster, fine},
		"Sentinel, CA unknown":  {sentinel, "all sentinels specified in configuration are unreachable"},
		"Sentinel, CA given":    {sentinel + "&ssl_ca_certs=" + caFile, fine},
		"Sentinel, any":         {sentinel + "&ssl_cert_reqs=none", fine},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			parsed, err := parseRedis("rediss://" + tt.url)
			if err != nil {
				t.Fatal(err)
			}
			var c redis.UniversalClient
			if parsed.cluster != nil {
				c = redis.NewClusterClient(parsed.cluster)
			} else {
				c = parsed.client()
			}
			defer c.Close()
			got := fine
			if err := c.Set(ctx, "key", "value", 0).Err(); err != nil {
				got = err.Error()
			}
			if (got == fine) != (tt.want == fine) || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
