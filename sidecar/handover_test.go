package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// handing is a sidecar's standard input, and what becomes of it.
type handing struct {
	*Handovers
	settings Settings
	in       *io.PipeWriter
	signals  chan os.Signal
}

func newHanding(t *testing.T, s Settings) *handing {
	t.Helper()
	out, in := io.Pipe()
	signals := make(chan os.Signal, 1)
	t.Cleanup(func() { in.Close() })
	return &handing{takeHandovers(out, s, signals, slog.New(slog.DiscardHandler)), s, in, signals}
}

func (h *handing) give(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		t.Error(err)
	}
}

func (h *handing) waited(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h.Wait(ctx)
	if ctx.Err() != nil {
		t.Fatal("nothing comes")
	}
}

func (h *handing) signalled(t *testing.T) {
	t.Helper()
	select {
	case <-h.signals:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is told of the key")
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
	return string(text)
}

func TestTheFirstHandoverIsWaitedFor(t *testing.T) {
	h := newHanding(t, Settings{Join: true, StateDir: t.TempDir()})
	go h.give(t, `{"authKey": "tskey-one", "openCodePassword": "secret"}`)
	h.waited(t)
	if key := content(t, h.settings.keyFile()); key != "tskey-one" {
		t.Errorf("the key is %q", key)
	}
	if password := content(t, h.settings.openCodePassword()); password != "secret" {
		t.Errorf("the password is %q", password)
	}
	if len(h.signals) != 0 {
		t.Error("it is told to join anew")
	}
	h.give(t, `{"authKey": "tskey-two"}`)
	h.signalled(t)
	if key := content(t, h.settings.keyFile()); key != "tskey-two" {
		t.Errorf("the key is %q", key)
	}
	if password := content(t, h.settings.openCodePassword()); password != "secret" {
		t.Errorf("the password is %q", password)
	}
}

func TestNobodyWaitsInVain(t *testing.T) {
	h := newHanding(t, Settings{Join: true, StateDir: t.TempDir()})
	go h.give(t, `{}`)
	h.waited(t)
	h = newHanding(t, Settings{Join: true, StateDir: t.TempDir()})
	h.in.Close()
	h.waited(t)
	newHanding(t, Settings{StateDir: t.TempDir()}).waited(t)
	keyed := Settings{Join: true, StateDir: t.TempDir()}
	giveKey(t, keyed, "tskey")
	newHanding(t, keyed).waited(t)
}

func TestWhatHasAPlaceDoesNotWaitAndHearsOfKeys(t *testing.T) {
	s := Settings{Join: true, StateDir: t.TempDir(), TailnetID: "one"}
	if err := os.WriteFile(s.enrolledFile(), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHanding(t, s)
	h.waited(t)
	h.give(t, `{"openCodePassword": "secret"}`)
	h.give(t, `{"authKey": "tskey-one"}`)
	h.signalled(t)
	if len(h.signals) != 0 {
		t.Error("it is told twice")
	}
	if err := os.Remove(s.keyFile()); err != nil {
		t.Fatal(err)
	}
	s.TailnetID = "another"
	h = newHanding(t, s)
	if !h.Handovers.waited.Load() {
		t.Error("a place on another tailnet counts")
	}
}

func TestWhatIsNoHandoverIsNotRepeated(t *testing.T) {
	var said strings.Builder
	s := Settings{Join: true, StateDir: t.TempDir()}
	in := strings.NewReader("tskey-secret\n" + `{"authKey": "tskey-one"}` + "\n")
	signals := make(chan os.Signal, 1)
	h := &Handovers{settings: s, log: slog.New(slog.NewTextHandler(&said, nil)), reenrol: signals, first: make(chan struct{})}
	h.read(in)
	if strings.Contains(said.String(), "secret") || !strings.Contains(said.String(), "no handover") {
		t.Errorf("it said %q", said.String())
	}
	if key := content(t, s.keyFile()); key != "tskey-one" || len(signals) != 1 {
		t.Errorf("the key is %q, %d signals", key, len(signals))
	}
}
