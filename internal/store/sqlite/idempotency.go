package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// takeKeys takes the keys of creates. The answer is what they stand for then.
func (t *tx) takeKeys(creates []store.Create) map[string]store.StoredKey {
	keyed := rowsOf(store.Keyed(creates), givenKey)
	if keyed.n == 0 {
		return nil
	}
	t.put("take_keys", keyed, micros(t.now), micros(t.now.Add(-store.KeyLife)))
	stored := make(map[string]store.StoredKey, keyed.n)
	t.get("keys", keyed, func(r *row) error {
		key, k := r.text(), store.StoredKey{}
		k.Digest, _ = r.next().([]byte)
		k.Batch = r.id()
		stored[key] = k
		return nil
	})
	return stored
}

func givenKey(c *store.Create, to []driver.Value) []driver.Value {
	return append(to, c.Key.Key, c.Batch.ID[:], c.Key.Digest[:])
}

// Details is as in store.Store.
func (s *Store) Details(ctx context.Context, batch task.ID) ([]store.Detail, error) {
	var tasks []store.Detail
	var related store.Related
	err := s.read(ctx, func(t *tx) error {
		id := batch[:]
		t.rows("batch_tasks", func(r *row) error {
			d, err := r.detail()
			tasks = append(tasks, d)
			return err
		}, id)
		t.rows("batch_parents", func(r *row) error {
			p := store.RelatedParent{Link: store.Link{Child: r.id(), Parent: r.id(), RequiresSuccess: r.bool()}}
			p.Status = task.Status(r.int())
			related.Parents = append(related.Parents, p)
			return nil
		}, id)
		t.rows("batch_deliveries", func(r *row) error {
			related.Deliveries = append(related.Deliveries, store.RelatedDelivery{Task: r.id(), DeliveryRecord: r.delivery()})
			return nil
		}, id)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	related.AddTo(tasks)
	return tasks, nil
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
