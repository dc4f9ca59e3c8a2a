package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
)

func TestReporterWritesWholeSnapshotsOnChange(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out, Snapshot{State: stateStarting, Hostname: "alpha"})
	r.Update(func(s *Snapshot) {})
	r.Update(func(s *Snapshot) { s.Border = true })
	r.Update(func(s *Snapshot) { s.Border = true })
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	var last map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &last); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"border", "state", "hostname", "dnsName", "ips", "nodeId", "tun", "online", "health", "error", "at"} {
		if last[key] == nil {
			t.Errorf("%s is missing or null in %s", key, lines[1])
		}
	}
	if last["border"] != true || last["hostname"] != "alpha" {
		t.Error(lines[1])
	}
}

func TestReporterIsForConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out, Snapshot{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				r.Update(func(s *Snapshot) { s.Border = !s.Border })
				r.Last()
			}
		})
	}
	all.Wait()
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Fatal(line)
		}
	}
}
