package store

import (
	"bytes"
	"slices"

	"taskrunner/internal/task"
)

// Create is a batch to create.
type Create struct {
	Batch *task.Batch
	// Key is nil where there is none.
	Key *Idempotency
}

// Created is what came of a [Create].
type Created struct {
	// Batch is the id of the batch that is there now: the one that was passed, or that of the first create with the key.
	Batch task.ID
	// Kept are the tasks that were created, in request order, with their dependencies as they are: those of the batch but
	// for duplicates. Nil when Replayed.
	Kept []*task.Task
	// State is that of Kept[i], made when it is asked for; nil where there are none.
	State func(i int) task.State
	// Parents are the states of the tasks of other batches on which they depend.
	Parents map[task.ID]task.Status
	// Outbox: there is work for it now.
	Outbox bool
	// Replayed: nothing was created, since an earlier create had the same key and digest.
	Replayed bool
	// Err is ErrKeyReused, or nil. With it nothing was created.
	Err error
}

// Fresh reports whether it is not of an earlier create, nor refused.
func (c *Created) Fresh() bool { return !c.Replayed && c.Err == nil }

// StoredKey is what a driver finds under a key.
type StoredKey struct {
	Digest []byte
	Batch  task.ID
}

// Replay answers those of creates whose keys stand for other batches; the others are to be created. Creates with one key may
// be among them: keys, by their names, say whose it is.
func Replay(creates []Create, keys map[string]StoredKey) []Created {
	created := make([]Created, len(creates))
	for i, c := range creates {
		created[i].Batch = c.Batch.ID
		if c.Key == nil {
			continue
		}
		switch known := keys[c.Key.Key]; {
		case known.Batch == c.Batch.ID:
		case bytes.Equal(known.Digest, c.Key.Digest[:]):
			created[i] = Created{Batch: known.Batch, Replayed: true}
		default:
			created[i].Err = ErrKeyReused
		}
	}
	return created
}

// AnyFresh reports whether one of created is Fresh.
func AnyFresh(created []Created) bool {
	return slices.ContainsFunc(created, func(c Created) bool { return c.Fresh() })
}

// Keyed are those of creates that have a key.
func Keyed(creates []Create) []Create {
	return slices.DeleteFunc(slices.Clone(creates), func(c Create) bool { return c.Key == nil })
}
