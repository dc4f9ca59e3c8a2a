package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
)

func TestSettingsHaveDefaults(t *testing.T) {
	s, err := readSettings(environment(map[string]string{"PERRY_HOSTNAME": "alpha"}))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Join || !s.TUN || s.WireGuardPort != 41641 || s.WorkerPort != 7392 || s.SSHPort != 22 ||
		s.StateDir != "/var/lib/perry" || s.RunDir != "/run/perry" || s.LogLevel != slog.LevelInfo {
		t.Errorf("%+v", s)
	}
	if !s.tailscalesOwn() {
		t.Error("no coordinator named is Tailscale's own")
	}
}

func TestSettingsAreRead(t *testing.T) {
	s, err := readSettings(environment(map[string]string{
		"PERRY_HOSTNAME": "alpha", "PERRY_TAILNET": "none", "PERRY_TUN": "off", "PERRY_CONTROL_URL": "http://10.0.0.1:8080/",
		"PERRY_OWNERS": " a@example.com, ,b@example.com", "PERRY_REFUSED_ADDRESSES": "100.64.0.1,fd7a:115c:a1e0::1", "PERRY_LOG": "debug",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.Join || s.TUN || s.ControlURL != "http://10.0.0.1:8080" || s.LogLevel != slog.LevelDebug || s.tailscalesOwn() {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(s.Owners, []string{"a@example.com", "b@example.com"}) {
		t.Errorf("owners %q", s.Owners)
	}
	if !slices.Equal(s.Refused, []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")}) {
		t.Errorf("refused %v", s.Refused)
	}
}

func TestWrongSettingsNameTheVariable(t *testing.T) {
	for name, value := range map[string]string{
		"PERRY_HOSTNAME": "Not A Name", "PERRY_TAILNET": "perhaps", "PERRY_TUN": "on", "PERRY_CONTROL_URL": "ftp://x",
		"PERRY_STATE_DIR": "relative", "PERRY_RUN_DIR": "relative", "PERRY_REFUSED_ADDRESSES": "here", "PERRY_WIREGUARD_PORT": "0",
		"PERRY_WORKER_PORT": "70000", "PERRY_SSH_PORT": "ssh", "PERRY_LOG": "loud",
	} {
		of := map[string]string{"PERRY_HOSTNAME": "alpha"}
		of[name] = value
		if _, err := readSettings(environment(of)); err == nil || !contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestTailscalesOwnCoordinator(t *testing.T) {
	for url, want := range map[string]bool{
		"": true, "https://controlplane.tailscale.com": true, "https://headscale.example.com": false, "https://nottailscale.com": false,
	} {
		if got := (Settings{ControlURL: url}).tailscalesOwn(); got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
}

func TestCoordinatorsThatClientsDoNotComeBackTo(t *testing.T) {
	for url, want := range map[string]bool{
		"": false, "https://192.0.2.2": false, "http://10.9.0.1:8080": false, "http://127.0.0.1:8080": false, "http://localhost:8080": false,
		"http://192.0.2.2:8080": true, "http://100.64.0.1:8080": true, "http://headscale.example.com": true,
	} {
		if got := (Settings{ControlURL: url}).staysAway(); got != want {
			t.Errorf("%q: %v", url, got)
		}
	}
}
