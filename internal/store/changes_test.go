package store

import (
	"testing"

	"taskrunner/internal/task"
)

func TestHost(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://a/b": "a", "http://A:/b": "a", "https://user@A.example:8443?x": "a.example:8443", "http://[::1]/": "[::1]", "http://[::1]:/": "[::1]",
		"http://[::1]:80": "[::1]:80", "http://%zz": "",
	} {
		if got := Host(task.Action{URL: url}); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}
