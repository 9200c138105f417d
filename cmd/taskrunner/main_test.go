package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"version", "--version"} {
		var out bytes.Buffer
		cmd := root()
		cmd.SetOut(&out)
		cmd.SetArgs([]string{arg})
		if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "taskrunner "+version+" go1.") || !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("%s: %q, %v", arg, out.String(), err)
		}
	}
}
