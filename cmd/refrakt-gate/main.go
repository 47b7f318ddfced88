// Command refrakt-gate is Envoy's external authorization service for the Refrakt
// API: it decides which requests may start training jobs.
package main

import "os"

// version is set when a release is built.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
