package sqlite

import (
	"context"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// takeKey takes key for batch, and reports whether that is to be created. It is not when there was an error.
func (t *tx) takeKey(key *store.Idempotency, batch task.ID) bool {
	taken := false
	t.rows("take_key", func(*row) error {
		taken = true
		return nil
	}, key.Key, key.Digest[:], batch.String(), micros(t.now), micros(t.now.Add(-store.KeyLife)))
	return taken && t.err == nil
}

// replay reads what the create made that has taken key.
func (t *tx) replay(key *store.Idempotency) (store.Created, error) {
	var found store.StoredKey
	t.rows("key", func(r *row) error {
		found.Digest, _ = r.next().([]byte)
		found.Batch = r.id()
		return nil
	}, key.Key)
	if t.err != nil {
		return store.Created{}, t.err
	}
	created, err := found.Replay(key)
	if err != nil {
		return store.Created{}, err
	}
	var related store.Related
	batch := created.Batch.String()
	t.rows("batch_tasks", func(r *row) error {
		d, err := r.detail()
		created.Tasks = append(created.Tasks, d)
		return err
	}, batch)
	t.rows("batch_parents", func(r *row) error {
		p := store.RelatedParent{Link: store.Link{Child: r.id(), Parent: r.id(), RequiresSuccess: r.bool()}}
		p.Status = task.Status(r.int())
		related.Parents = append(related.Parents, p)
		return nil
	}, batch)
	t.rows("batch_deliveries", func(r *row) error {
		related.Deliveries = append(related.Deliveries, store.RelatedDelivery{Task: r.id(), DeliveryRecord: r.delivery()})
		return nil
	}, batch)
	related.AddTo(created.Tasks)
	return created, t.err
}

// detail reads the columns of a task's facts and then of its state.
func (r *row) detail() (store.Detail, error) {
	k, err := r.task()
	if err != nil {
		return store.Detail{}, err
	}
	d := store.Detail{Item: store.Item{Task: *k, State: r.state()}}
	d.Task.Timeout = d.State.Timeout
	return d, nil
}

// purgeChunk is how many old keys one transaction deletes.
const purgeChunk = 1000

// purge deletes old keys.
func (s *Store) purge(ctx context.Context) error {
	for gone := purgeChunk; gone == purgeChunk; {
		err := s.write(ctx, func(t *tx) error {
			gone = 0
			t.rows("purge_keys", func(*row) error {
				gone++
				return nil
			}, micros(t.now.Add(-store.KeyLife)), int64(purgeChunk))
			return t.err
		})
		if err != nil {
			return fmt.Errorf("purge idempotency keys: %w", err)
		}
	}
	return nil
}
