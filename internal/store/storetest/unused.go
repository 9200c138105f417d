package storetest

import (
	"flag"
	"slices"
	"sync"
	"testing"
)

// Unused gathers the statements of a driver that no store of a suite has run. Safe for concurrent use.
type Unused struct {
	mu    sync.Mutex
	begun bool
	names []string
}

// Keep takes what one store has not run.
func (u *Unused) Keep(names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.begun {
		u.begun, u.names = true, names
		return
	}
	u.names = slices.DeleteFunc(u.names, func(name string) bool { return !slices.Contains(names, name) })
}

// Check fails for statements that none has run, but those that are tested elsewhere. It is called when the suite has
// ended, and says nothing when only a part of it was to run.
func (u *Unused) Check(tb testing.TB, elsewhere ...string) {
	tb.Helper()
	if flag.Lookup("test.run").Value.String() != "" {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range u.names {
		if !slices.Contains(elsewhere, name) {
			tb.Errorf("no test runs the statement %s", name)
		}
	}
}
