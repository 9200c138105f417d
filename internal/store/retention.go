package store

// Removed is what a step of retention did.
type Removed struct {
	// Batches are gone for every reader, Tasks are deleted.
	Batches, Tasks int
	// Busy: another process is at it; nothing was done.
	Busy bool
	// More: another step would find work now.
	More bool
}

// MaxPurgedLinks bounds the dependencies that one [Store.Purge] finds from its tasks: one task may have many more.
const MaxPurgedLinks = 10_000

// Unlinked reports whether tasks have no dependencies left after a step that deleted that many. One between two of them is
// found from either, so MaxPurgedLinks that were found may be half as many.
func Unlinked(deleted int) bool { return deleted < MaxPurgedLinks/2 }
