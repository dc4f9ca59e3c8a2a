package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	mostHandoverBytes = 64 << 10

	// firstHandover is how long a sidecar without a place and without a key waits for what it is handed at its start.
	// It was started by Docker when that does not come, and says then that it needs a key.
	firstHandover = 30 * time.Second
)

// Handover is one line of JSON on standard input, by which the control plane gives secrets to a sidecar: there they are
// in no file of the machine's, no argument and no environment. One comes with each start by the control plane, and
// others may later. What a field has goes to its file in the state folder; what it has not stays as it is.
type Handover struct {
	AuthKey          string `json:"authKey"`          // to be used at once, to join anew where there is a place already
	OpenCodePassword string `json:"openCodePassword"` // of the workspace's OpenCode server
}

// Handovers takes what comes on standard input.
type Handovers struct {
	settings Settings
	log      *slog.Logger
	reenrol  chan<- os.Signal
	waited   atomic.Bool // the start waits for the first one, and will read its key by itself
	first    chan struct{}
}

// takeHandovers reads in the background until the input ends. Keys that come while nobody waits for them are made known
// by a signal, as if a SIGHUP had come.
func takeHandovers(in io.Reader, s Settings, reenrol chan<- os.Signal, log *slog.Logger) *Handovers {
	h := &Handovers{settings: s, log: log, reenrol: reenrol, first: make(chan struct{})}
	h.waited.Store(s.Join && !s.hasPlace() && !exists(s.keyFile()))
	go h.read(in)
	return h
}

// Wait returns when there is a key, or when none will come: for a sidecar that cannot join without.
func (h *Handovers) Wait(ctx context.Context) {
	if !h.waited.Load() {
		return
	}
	select {
	case <-h.first:
		return
	case <-ctx.Done():
	case <-time.After(firstHandover):
	}
	if !h.waited.CompareAndSwap(true, false) {
		<-h.first // it comes just now
	}
}

func (h *Handovers) read(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, mostHandoverBytes)
	for lines.Scan() {
		hasKey := h.take(lines.Bytes())
		if h.waited.CompareAndSwap(true, false) {
			close(h.first)
		} else if hasKey {
			select {
			case h.reenrol <- syscall.SIGHUP:
			default: // it is about to read the key anyway
			}
		}
	}
	if err := lines.Err(); err != nil {
		h.log.Warn("nothing more is taken from standard input; restart the workspace to hand over again", "error", err)
	}
	if h.waited.CompareAndSwap(true, false) {
		close(h.first)
	}
}

// take puts one handover in its files, and tells whether there was a key.
func (h *Handovers) take(line []byte) bool {
	var given Handover
	if err := json.Unmarshal(line, &given); err != nil {
		h.log.Warn("what came on standard input is no handover") // and may be a secret all the same
		return false
	}
	for file, content := range map[string]string{
		h.settings.keyFile(): given.AuthKey, h.settings.openCodePassword(): given.OpenCodePassword,
	} {
		if content == "" {
			continue
		}
		if err := writeWhole(file, content); err != nil {
			h.log.Warn("what was handed over cannot be kept", "error", err)
		}
	}
	return given.AuthKey != ""
}

// writeWhole writes a file for its owner alone, whole or not at all.
func writeWhole(path, content string) error {
	partial := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(partial, []byte(content), 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(partial, path)
}

// hasPlace tells whether this node has a place on the tailnet that it is meant for.
func (s Settings) hasPlace() bool {
	noted, err := os.ReadFile(s.enrolledFile())
	return err == nil && (s.TailnetID == "" || notedTailnet(noted) == s.TailnetID)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
