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

// MaxPurgedLinks is how many dependencies one [Store.Purge] deletes: one task may have many more.
const MaxPurgedLinks = 10_000
