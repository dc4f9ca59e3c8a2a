package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startSandbox runs this very test program as mode sandbox, with all of the sidecar's packages linked in. It is
// built as the sidecar is, but for the race detector, whose memory is its own.
func startSandbox(t *testing.T) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, "sandbox")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	for deadline := time.Now().Add(5 * time.Second); !waitsForSignals(command.Process.Pid); {
		if time.Now().After(deadline) {
			t.Fatal("the sandbox does not come to rest")
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	return command
}

// waitsForSignals tells whether a process sleeps with SIGTERM taken from Go's runtime (while it is waited for, the
// kernel does not show it as blocked).
func waitsForSignals(pid int) bool {
	var ignored uint64
	_, err := fmt.Sscanf(statusLine(pid, "SigIgn:"), "%x", &ignored)
	return err == nil && ignored&(1<<(syscall.SIGTERM-1)) != 0 && strings.HasPrefix(statusLine(pid, "State:"), "S")
}

// statusLine is one value of /proc/<pid>/status.
func statusLine(pid int, key string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestSandboxEndsOnSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		command := startSandbox(t)
		before := time.Now()
		if err := command.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("%v: %v", signal, err)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("%v: it took %v", signal, took)
		}
	}
}

// What counts is memory of its own; the program's text is shared with every other pod's sidecar and sandbox.
func TestSandboxIsSmall(t *testing.T) {
	if raceDetector {
		t.Log("the race detector's own memory is not measured")
		return
	}
	command := startSandbox(t)
	var kilobytes int
	if _, err := fmt.Sscanf(statusLine(command.Process.Pid, "RssAnon:"), "%d kB", &kilobytes); err != nil {
		t.Fatal(err)
	}
	if kilobytes == 0 || kilobytes > 1400 {
		t.Errorf("the sandbox has %d kB of its own; does package pause import more than syscall?", kilobytes)
	}
	t.Logf("%d kB", kilobytes)
	_ = command.Process.Kill()
	_ = command.Wait()
}

func TestTheBorderStandsBeforeTheSandboxIsOne(t *testing.T) {
	ns := newNamespace(t)
	joinBy(ns, "eth0", []string{"10.9.0.2/28"}, newNamespace(t), "bridge0", []string{"10.9.0.1/28"})
	ns.route("default", "10.9.0.1")
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("setpriv", "--no-new-privs", path, "border")
	command.Env = []string{asProgram + "=1", "PERRY_WORKER_PORT=7399"}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ns.do(func() { ns.must(command.Start()) })
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != borderStands+"\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
	if rules := ns.run("nft", "list", "table", "inet", borderTable); !contains(rules, "7399") || !contains(rules, "10.9.0.1") {
		t.Errorf("no border stands: %s", rules)
	}
	for deadline := time.Now().Add(5 * time.Second); !waitsForSignals(command.Process.Pid); {
		if time.Now().After(deadline) {
			t.Fatal("it does not become a sandbox")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, set := range []string{"CapPrm:", "CapEff:"} {
		if has := statusLine(command.Process.Pid, set); strings.Trim(has, "0") != "" {
			t.Errorf("the sandbox has capabilities: %s %s", set, has)
		}
	}
}

func TestWithoutABorderThereIsNoSandbox(t *testing.T) {
	var out, failed bytes.Buffer
	if status := run([]string{"border"}, environment(map[string]string{"PERRY_SSH_PORT": "x"}), nil, &out, &failed); status != 1 ||
		!contains(failed.String(), "PERRY_SSH_PORT") || out.Len() != 0 {
		t.Errorf("%d, %q, %q", status, out.String(), failed.String())
	}
}
