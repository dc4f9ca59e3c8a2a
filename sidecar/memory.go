package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	memoryInterval = 20 * time.Second
	memoryIdle     = 4 << 20 // bytes that the heap holds without using them
)

// giveMemoryBack returns what a bulk transfer left behind: the 64 KiB packet buffers of wireguard-go stay with the Go
// runtime otherwise (tailscale#7272). It does nothing while the heap is busy. GOMEMLIMIT bounds the peak.
func giveMemoryBack(ctx context.Context) {
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	var allocated uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		quiet := stats.TotalAlloc-allocated < memoryIdle
		allocated = stats.TotalAlloc
		if quiet && stats.HeapIdle-stats.HeapReleased+stats.HeapInuse-stats.HeapAlloc > memoryIdle {
			debug.FreeOSMemory()
		}
	}
}
