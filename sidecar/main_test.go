package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asProgram has the test program be the sidecar itself, for tests that need whole processes.
const asProgram = "PERRY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
	}
	if socket := os.Getenv(asCaller); socket != "" {
		fmt.Print(callWayOut(socket))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func contains(text, part string) bool { return strings.Contains(text, part) }

func environment(of map[string]string) func(string) string {
	return func(name string) string { return of[name] }
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"bridge"}, {"--help"}} {
		var out, failed bytes.Buffer
		if status := run(args, environment(nil), nil, &out, &failed); status != 2 || !contains(failed.String(), "perry-sidecar <mode>") {
			t.Errorf("%v: status %d, %q", args, status, failed.String())
		}
		if out.Len() > 0 {
			t.Errorf("%v: standard output is for the status alone, not %q", args, out.String())
		}
	}
}

func TestWrongSettingsAreOneSentence(t *testing.T) {
	var out, failed bytes.Buffer
	if status := run([]string{"workspace"}, environment(nil), nil, &out, &failed); status != 1 || !contains(failed.String(), "PERRY_HOSTNAME") {
		t.Errorf("status %d, %q", status, failed.String())
	}
}
