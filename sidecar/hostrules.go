package main

import (
	"context"
	"io"
)

func runHostRules(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	return nil
}
