package store

import (
	"crypto/sha256"
	"errors"
	"time"

	"taskrunner/internal/task"
)

// ErrKeyReused: the key of an [Idempotency] stands for another request.
var ErrKeyReused = errors.New("idempotency key was used with another request")

// KeyLife is how long a key is kept, by the clock of the database. An older one counts as absent.
const KeyLife = 24 * time.Hour

// Idempotency lets a create be sent again without creating twice: the first one with a key stores it in the transaction
// that creates, and those after it are answered with what it created. One that comes while the first is under way waits
// for its commit.
type Idempotency struct {
	// Key is the client's choice, one space for all clients; at most 255 characters.
	Key string
	// Digest is that of the request. The same key with another one is ErrKeyReused.
	Digest [sha256.Size]byte
}

// Name is Key; nil for no idempotency.
func (i *Idempotency) Name() *string {
	if i == nil {
		return nil
	}
	return &i.Key
}

// Related is what a driver reads of a batch besides its tasks.
type Related struct {
	Parents    []RelatedParent
	Deliveries []RelatedDelivery
}

// RelatedParent is a dependency with the state of the parent.
type RelatedParent struct {
	Link
	Status task.Status
}

// RelatedDelivery is a record with its task.
type RelatedDelivery struct {
	Task task.ID
	DeliveryRecord
}

// AddTo puts what was read to the tasks of the batch. All three are in the order of the tasks' ids.
func (r *Related) AddTo(tasks []Detail) {
	parents, deliveries := r.Parents, r.Deliveries
	for i := range tasks {
		d := &tasks[i]
		for len(parents) > 0 && parents[0].Child == d.Task.ID {
			p := parents[0]
			d.Task.Dependencies = append(d.Task.Dependencies, task.Dependency{Parent: p.Parent, RequiresSuccess: p.RequiresSuccess})
			d.Parents = append(d.Parents, p.Status)
			parents = parents[1:]
		}
		for len(deliveries) > 0 && deliveries[0].Task == d.Task.ID {
			d.Deliveries = append(d.Deliveries, deliveries[0].DeliveryRecord)
			deliveries = deliveries[1:]
		}
	}
}
