// Package create takes batches in. Concurrent small ones share a transaction, and each gets its own answer once it is
// durable.
//
// Invariants: an answer is given only after the commit; whoever has work because of it (the pump, the outbox) is told
// after the commit, in this process at once, also when the client has gone away.
package create

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"taskrunner/internal/group"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

const (
	// maxGroup bounds what shares a transaction, in bytes as weigh has them, so that a crowd is not answered all at once
	// and late.
	maxGroup = 1 << 20
	// maxShare is how much of it one create may bring. There is little to win for a larger one, and others would wait for it.
	maxShare = maxGroup / 16
)

// maxWait is how long a create waits for the one before, as an outcome does.
const maxWait = 10 * time.Second

// Store is what the creator needs of a store.
type Store interface {
	Create(ctx context.Context, creates []store.Create) ([]store.Created, error)
}

// Options of [New]. All are needed.
type Options struct {
	Store Store
	// WakePump and WakeOutbox tell them that there is work. They must not block.
	WakePump, WakeOutbox func()
}

// Creator creates batches. Safe for concurrent use.
type Creator struct {
	options Options
	group   *group.Group[store.Create, store.Created]

	mu   sync.Mutex
	keys map[string]int // of creates that are carried out alone now, and how many have them
}

// New makes a creator; [Creator.Run] must run for it to answer.
func New(o Options) *Creator {
	c := &Creator{options: o, keys: map[string]int{}}
	c.group = group.New(group.Options[store.Create, store.Created]{
		Do: c.commit, Split: func(err error) bool { return !errors.Is(err, store.ErrUnavailable) },
		Limit: maxGroup, Weigh: weigh, Wait: maxWait,
	})
	return c
}

// Create stores b, durably; key is nil where there is none. Its errors are those of [store.Store], and that of the answer.
// When ctx ended first it is not known whether b is stored.
func (c *Creator) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	create := store.Create{Batch: b, Key: key}
	created, err := c.carryOut(ctx, create)
	if errors.Is(err, group.ErrBusy) {
		err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	if err != nil {
		return store.Created{}, err
	}
	return created[0], created[0].Err
}

// Run works until ctx ends and everything accepted is created.
func (c *Creator) Run(ctx context.Context) error { return c.group.Run(ctx) }

// carryOut lets small creates share a transaction. One that looks for duplicates waits for others that look for the same,
// however large they are, and one with the key of such a create waits for that, so nobody else is to wait with them.
func (c *Creator) carryOut(ctx context.Context, create store.Create) ([]store.Created, error) {
	large := create.Batch.Dedupes() || weigh(create) > maxShare
	done, alone := c.begin(create.Key, large)
	if !alone {
		return c.group.Do(ctx, create)
	}
	defer done()
	return c.commit(ctx, []store.Create{create})
}

// begin reports whether a create with key is carried out alone: large ones are, and those that have their keys. Then done
// forgets the key.
func (c *Creator) begin(key *store.Idempotency, large bool) (done func(), alone bool) {
	if key == nil {
		return func() {}, large
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !large && c.keys[key.Key] == 0 {
		return nil, false
	}
	c.keys[key.Key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.keys[key.Key]--; c.keys[key.Key] == 0 {
			delete(c.keys, key.Key)
		}
	}, true
}

func (c *Creator) commit(ctx context.Context, creates []store.Create) ([]store.Created, error) {
	created, err := c.options.Store.Create(ctx, creates)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(created, func(c store.Created) bool { return len(c.Kept) > 0 }) {
		c.options.WakePump()
	}
	if slices.ContainsFunc(created, func(c store.Created) bool { return c.Outbox }) {
		c.options.WakeOutbox()
	}
	return created, nil
}

// weigh is about how many bytes a create writes.
func weigh(create store.Create) int {
	const aTask, aDependency = 1000, 100
	n := len(create.Batch.Metadata)
	for i := range create.Batch.OnComplete {
		n += create.Batch.OnComplete[i].Size()
	}
	for _, t := range create.Batch.Tasks {
		n += aTask + aDependency*len(t.Dependencies) + t.Size()
	}
	return n
}
