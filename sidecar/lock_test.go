package main

import (
	"path/filepath"
	"testing"
	"time"
)

func TestOneProcessPerStateFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	first, err := lockState(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := lockState(folder); err == nil || !contains(err.Error(), "Another sidecar") {
		t.Errorf("a second one: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { first.Close() })
	second, err := lockState(folder)
	if err != nil {
		t.Fatalf("after the end of the first: %v", err)
	}
	second.Close()
}
