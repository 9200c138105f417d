package store

import (
	"sync"

	"taskrunner/internal/task"
)

// BatchVersion says as of when the tasks of a batch were read. An end is final, and a batch gets no new tasks; so once all have
// ended, what they come to changes only by reports that are late. Late counts the transactions that had some.
type BatchVersion struct {
	ID   task.ID
	Late int64
}

// EndedBatches remembers what the tasks of batches came to that have ended, those that were asked for last. The zero value is ready.
// Safe for concurrent use; nobody may change what it returns.
type EndedBatches[V any] struct {
	mu         sync.Mutex
	young, old map[BatchVersion]weighed[V] // when the young ones are enough they become the old ones, and those are forgotten
	weight     int                         // of the young
}

type weighed[V any] struct {
	v      V
	weight int
}

// maxEnded bounds the weight of the young: a few megabytes.
const maxEnded = 5_000

// Get returns what is remembered.
func (e *EndedBatches[V]) Get(version BatchVersion) (v V, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known, ok := e.young[version]
	if !ok {
		if known, ok = e.old[version]; ok {
			e.keep(version, known)
		}
	}
	return known.v, ok
}

// Put remembers v if the tasks of the batch have all ended, by their counts. weight is about how many times 500 bytes v has.
func (e *EndedBatches[V]) Put(version BatchVersion, counts map[task.Status]int, v V, weight int) {
	for status, n := range counts {
		if n > 0 && !status.Terminal() {
			return
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(version, weighed[V]{v, weight})
}

func (e *EndedBatches[V]) keep(version BatchVersion, known weighed[V]) {
	if e.weight >= maxEnded || e.young == nil {
		e.young, e.old, e.weight = map[BatchVersion]weighed[V]{}, e.young, 0
	}
	e.young[version] = known
	e.weight += known.weight
}

// Forget forgets all. A database may have been set back when it is connected to anew: then batches have not ended after all.
func (e *EndedBatches[V]) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.young, e.old, e.weight = nil, nil, 0
}
