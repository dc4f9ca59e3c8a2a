package main

import (
	"encoding/json"
	"io"
	"net/netip"
	"reflect"
	"sync"
	"time"
)

// States of a snapshot.
const (
	stateStarting = "starting"  // nothing is known yet
	stateNeedsKey = "needs-key" // only an auth key and SIGHUP help
	stateJoining  = "joining"   // on the way
	stateRunning  = "running"   // traffic flows; Online tells whether the coordinator is there too
	stateOffline  = "offline"   // not joined, because the coordinator does not answer; it is tried on and on
	stateFailed   = "failed"    // only a person or a restart helps
	stateDisabled = "disabled"  // PERRY_TAILNET=none
)

// Snapshot is all that the control plane may know of a sidecar. It never holds a key.
type Snapshot struct {
	Border   bool         `json:"border"` // the border stands; the workspace may start
	State    string       `json:"state"`
	Hostname string       `json:"hostname"`
	DNSName  string       `json:"dnsName"` // full name without the last dot
	IPs      []netip.Addr `json:"ips"`
	NodeID   string       `json:"nodeId"` // the coordinator's stable id, by which it can be asked to delete the node
	TUN      bool         `json:"tun"`    // false: netstack, no keyless ssh
	Online   bool         `json:"online"` // the coordinator is in touch
	Health   []string     `json:"health"`
	Error    string       `json:"error"` // one sentence, or empty
	Door     string       `json:"door"`  // why the door to OpenCode, or the gateway's way out, is shut: one sentence, or empty
	At       time.Time    `json:"at"`
}

// Reporter writes a whole snapshot as one line of JSON on every change, and nothing on none. Safe for concurrent use.
type Reporter struct {
	mu   sync.Mutex
	out  io.Writer
	last Snapshot
}

func newReporter(out io.Writer, first Snapshot) *Reporter {
	r := &Reporter{out: out}
	r.Update(func(s *Snapshot) { *s = first })
	return r
}

// Update changes the snapshot and writes it if it differs from the last.
func (r *Reporter) Update(change func(*Snapshot)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.last
	change(&next)
	if next.IPs == nil {
		next.IPs = []netip.Addr{}
	}
	if next.Health == nil {
		next.Health = []string{}
	}
	next.At = r.last.At
	if reflect.DeepEqual(next, r.last) {
		return
	}
	next.At = time.Now().UTC()
	r.last = next
	line, err := json.Marshal(next)
	if err != nil {
		panic(err) // a struct of strings
	}
	// One write, so that a line is never torn. Nobody reading it is no reason to stop: the pod's border stays.
	_, _ = r.out.Write(append(line, '\n'))
}

// Last is the newest snapshot.
func (r *Reporter) Last() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
