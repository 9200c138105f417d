package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// takeKey queues the taking of key for batch, before any other lock is waited for. The answer is whether the batch is to
// be created; it holds once the statement has run. No key is always free.
func (t *tx) takeKey(key *store.Idempotency, batch task.ID) *bool {
	taken := new(key == nil)
	if key != nil {
		args := []any{key.Key, key.Digest[:], batch, t.s.skew(), store.KeyLife}
		t.rows("take_key", args, func(rows pgx.Rows) error { return rows.Scan(taken) })
	}
	return taken
}

// replay reads what the create made that has taken key. The transaction holds the lock on the key.
func (t *tx) replay(ctx context.Context, key *store.Idempotency) (store.Created, error) {
	var found store.StoredKey
	t.row("key", []any{key.Key}, func(row pgx.Row) error { return row.Scan(&found.Digest, (*[16]byte)(&found.Batch)) })
	if err := t.flush(ctx); err != nil {
		return store.Created{}, err
	}
	created, err := found.Replay(key)
	if err != nil {
		return store.Created{}, err
	}
	var related store.Related
	batch := []any{created.Batch}
	t.rows("batch_tasks", batch, func(rows pgx.Rows) error {
		d, err := scanDetail(rows)
		created.Tasks = append(created.Tasks, d)
		return err
	})
	t.rows("batch_parents", batch, func(rows pgx.Rows) error {
		var p store.RelatedParent
		var status int16
		err := rows.Scan((*[16]byte)(&p.Child), (*[16]byte)(&p.Parent), &p.RequiresSuccess, &status)
		p.Status = task.Status(status)
		related.Parents = append(related.Parents, p)
		return err
	})
	t.rows("batch_deliveries", batch, func(rows pgx.Rows) error {
		var d store.RelatedDelivery
		var scan deliveryScan
		err := rows.Scan(append([]any{(*[16]byte)(&d.Task)}, scan.into()...)...)
		d.DeliveryRecord = scan.get()
		related.Deliveries = append(related.Deliveries, d)
		return err
	})
	if err := t.flush(ctx); err != nil {
		return store.Created{}, err
	}
	related.AddTo(created.Tasks)
	return created, nil
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
