package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// takeKeys queues the taking of the keys of creates, before any other lock is waited for. The answer is what they stand
// for then, once the statements have run.
func (t *tx) takeKeys(creates []store.Create) map[string]store.StoredKey {
	keyed := store.Keyed(creates)
	n := len(keyed)
	if n == 0 {
		return nil
	}
	keys, digests, batches := make([]string, n), make([][]byte, n), make(uuids, n)
	for i, c := range keyed {
		keys[i], digests[i], batches[i] = c.Key.Key, c.Key.Digest[:], c.Batch.ID
	}
	t.exec("take_keys", keys, digests, batches, t.s.skew(), store.KeyLife)
	stored := make(map[string]store.StoredKey, n)
	t.rows("keys", []any{keys}, func(rows pgx.Rows) error {
		var key string
		var k store.StoredKey
		err := rows.Scan(&key, &k.Digest, (*[16]byte)(&k.Batch))
		stored[key] = k
		return err
	})
	return stored
}

// Details is as in store.Store. It is the answer to a create that is sent again, perhaps since a connection broke, so a
// connection that breaks here must not fail that.
func (s *Store) Details(ctx context.Context, batch task.ID) ([]store.Detail, error) {
	var tasks []store.Detail
	var related store.Related
	err := s.again(ctx, func() error {
		tasks, related = nil, store.Related{}
		return s.read(ctx, func(t *tx) { t.details(batch, &tasks, &related) })
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	related.AddTo(tasks)
	return tasks, nil
}

// details queues the reading of a batch whole.
func (t *tx) details(batch task.ID, tasks *[]store.Detail, related *store.Related) {
	args := []any{batch}
	t.exec("open_list")
	t.rows("batch_tasks", args, func(rows pgx.Rows) error {
		d, err := scanDetail(rows)
		*tasks = append(*tasks, d)
		return err
	})
	t.rows("batch_parents", args, func(rows pgx.Rows) error {
		var p store.RelatedParent
		var status int16
		err := rows.Scan((*[16]byte)(&p.Child), (*[16]byte)(&p.Parent), &p.RequiresSuccess, &status)
		p.Status = task.Status(status)
		related.Parents = append(related.Parents, p)
		return err
	})
	t.rows("batch_deliveries", args, func(rows pgx.Rows) error {
		var d store.RelatedDelivery
		var scan deliveryScan
		err := rows.Scan(append([]any{(*[16]byte)(&d.Task)}, scan.into()...)...)
		d.DeliveryRecord = scan.get()
		related.Deliveries = append(related.Deliveries, d)
		return err
	})
}

// scanDetail reads the facts and the state of a task.
func scanDetail(row pgx.Row) (store.Detail, error) {
	var facts factsScan
	var state stateScan
	if err := row.Scan(append(facts.into(), state.into()...)...); err != nil {
		return store.Detail{}, err
	}
	k, err := facts.get()
	if err != nil {
		return store.Detail{}, err
	}
	d := store.Detail{Item: store.Item{Task: *k, State: state.get()}}
	d.Task.Timeout = d.State.Timeout
	return d, nil
}

const (
	// purgeEvery is how often a process looks for old keys.
	purgeEvery = time.Minute
	// purgeChunk is how many of them one transaction deletes.
	purgeChunk = 1000
)

// purge deletes old keys, if it has not looked for them lately.
func (s *Store) purge(ctx context.Context) error {
	last := s.purged.Load()
	if last != nil && time.Since(*last) < purgeEvery || !s.purged.CompareAndSwap(last, new(time.Now())) {
		return nil
	}
	for gone := purgeChunk; gone == purgeChunk; {
		err := s.run(ctx, func(ctx context.Context, t *tx) error {
			gone = 0
			t.rows("purge_keys", []any{s.skew(), store.KeyLife, purgeChunk}, func(pgx.Rows) error {
				gone++
				return nil
			})
			if err := t.flush(ctx); err != nil {
				return err
			}
			if gone == 0 {
				return errNothing
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("purge idempotency keys: %w", err)
		}
		s.deletions.add(gone)
	}
	return nil
}
