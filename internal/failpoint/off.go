//go:build !failpoint

package failpoint

import "taskrunner/internal/store"

// Store returns s.
func Store(s store.Store) store.Store { return s }
