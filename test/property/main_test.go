package property_test

import (
	"flag"
	"os"
	"testing"
)

// checks is how many cases each property is tried with, where -rapid.checks does not say. `make property` tries more.
const checks = "500"

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}
