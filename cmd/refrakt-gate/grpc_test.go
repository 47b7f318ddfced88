package main

import (
	"testing"

	"github.com/refrakt-hub/refrakt-gate/certs"
)

// TestConnectionsOfClientsEnd: a client with a certificate has to show it again after a while.
func TestConnectionsOfClientsEnd(t *testing.T) {
	if age := alive(certs.Config{ClientCAFile: "ca.pem"}).MaxConnectionAge; age != maxClientAge {
		t.Errorf("with client certificates a connection may last %v, want %v", age, maxClientAge)
	}
	if age := alive(certs.Config{}).MaxConnectionAge; age != 0 {
		t.Errorf("without them it ends after %v", age)
	}
}
