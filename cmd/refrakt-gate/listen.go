package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// listen opens addr, which is host:port or unix:///path.
func listen(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix://")
	if !ok {
		return net.Listen("tcp", addr) //nolint:noctx // binding does not wait
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path) //nolint:noctx // binding does not wait
	if err != nil {
		return nil, err
	}
	// Envoy often runs as another user of the same group (in Kubernetes: fsGroup).
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // the group is meant
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the socket that a killed process left behind. If another process
// listens on the socket, removeStale returns an error.
func removeStale(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil { //nolint:noctx // bounded
		return errors.Join(fmt.Errorf("%s: another process listens there", path), c.Close())
	}
	return os.Remove(path)
}

// address returns the address of l in the form of GRPC_ADDR.
func address(l net.Listener) string {
	if a := l.Addr(); a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return l.Addr().String()
}
