package main

import (
	"strings"
	"testing"
)

// The help of dev tells what dev does, where that is not what serve does.
func TestDevDefaults(t *testing.T) {
	t.Parallel()
	usage := devCommand().UsageString()
	for _, want := range []string{
		"(LISTEN_ADDR, default 127.0.0.1)", "(WEBHOOK_ALLOWED_NETWORKS, default loopback)", "(LOG_LEVEL, default warn)", "(PORT, default 8085)",
	} {
		if !strings.Contains(usage, want) {
			t.Errorf("lacks %q:\n%s", want, usage)
		}
	}
}
