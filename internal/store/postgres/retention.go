package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Expire is as in store.Store. What is over stays over, but for what [Store.RetryDeliveries] makes pending again, and that
// keeps the batch alive; so batches are looked at without a lock, however long it takes.
func (s *Store) Expire(ctx context.Context, keep time.Duration, limit int) (store.Removed, error) {
	aged, err := s.aged(ctx, keep, limit)
	if err != nil {
		return store.Removed{}, fmt.Errorf("find old batches: %w", err)
	}
	removed := store.Removed{More: aged.n == limit}
	if aged.n == 0 {
		return removed, nil
	}
	err = s.run(ctx, func(ctx context.Context, t *tx) error {
		removed.Batches, removed.Busy = 0, false
		if err := t.lockRetention(ctx, &removed); err != nil {
			return err
		}
		if len(aged.alive) > 0 {
			t.exec("keep_alive", aged.alive, aged.until)
		}
		var gone uuids
		var keys []string
		t.rows("expire_batches", []any{aged.over, aged.before}, func(rows pgx.Rows) error {
			var id task.ID
			var key *string
			err := rows.Scan((*[16]byte)(&id), &key)
			gone = append(gone, id)
			if key != nil {
				keys = append(keys, *key)
			}
			return err
		})
		if err := t.flush(ctx); err != nil {
			return err
		}
		if removed.Batches = len(gone); removed.Batches == 0 {
			return nil
		}
		t.exec("delete_keys", keys, gone)
		t.exec("delete_progress", gone)
		t.deleteDeliveries(gone)
		return nil
	})
	if err != nil {
		return store.Removed{}, fmt.Errorf("expire batches: %w", err)
	}
	return removed, nil
}

// aged are the batches that were looked at: those that were over before a time, and those that were needed until later.
type aged struct {
	n      int
	before time.Time
	over   uuids
	alive  uuids
	until  []time.Time
}

func (s *Store) aged(ctx context.Context, keep time.Duration, limit int) (aged, error) {
	var found aged
	err := s.snapshot(ctx, func(ctx context.Context, t *tx) error {
		t.pinPlans()
		t.clock()
		if err := t.flush(ctx); err != nil {
			return err
		}
		found.before = t.now.Add(-keep)
		t.rows("aged_batches", []any{t.now, found.before, limit}, func(rows pgx.Rows) error {
			var id task.ID
			var until time.Time
			err := rows.Scan((*[16]byte)(&id), &until)
			if found.n++; until.After(found.before) {
				found.alive, found.until = append(found.alive, id), append(found.until, until)
			} else {
				found.over = append(found.over, id)
			}
			return err
		})
		return nil
	})
	return found, err
}

// lockRetention flushes, too. While another process has the lock there is nothing to do.
func (t *tx) lockRetention(ctx context.Context, removed *store.Removed) error {
	locked := false
	t.rows("lock_retention", nil, func(rows pgx.Rows) error { return rows.Scan(&locked) })
	err := t.flush(ctx)
	if removed.Busy = !locked; err == nil && removed.Busy {
		return errNothing
	}
	return err
}

// deleteDeliveries queues the deletion of those of tasks or batches.
func (t *tx) deleteDeliveries(sources uuids) {
	t.exec("lock_deliveries_of", sources)
	t.exec("delete_attempts", sources)
	t.exec("delete_deliveries", sources)
}

// Purge is as in store.Store.
func (s *Store) Purge(ctx context.Context, limit int) (store.Removed, error) {
	var removed store.Removed
	err := s.run(ctx, func(ctx context.Context, t *tx) error {
		removed = store.Removed{}
		if err := t.lockRetention(ctx, &removed); err != nil {
			return err
		}
		batches, err := t.ids(ctx, "expired_batches", limit)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return errNothing
		}
		tasks, err := t.ids(ctx, "expired_tasks", batches, limit)
		if err != nil {
			return err
		}
		removed.More = len(batches) == limit || len(tasks) == limit
		links, err := t.unlink(ctx, tasks)
		if err != nil {
			return err
		}
		if !store.Unlinked(links) { // perhaps not all; the tasks have to wait
			removed.More = true
			return nil
		}
		removed.Tasks = len(tasks)
		t.deleteTasks(tasks)
		t.exec("delete_expired", batches)
		return nil
	})
	if err != nil {
		return store.Removed{}, fmt.Errorf("purge tasks: %w", err)
	}
	s.deletions.add(removed.Tasks) // of expired, at most
	if removed.Tasks > 0 && !removed.More {
		err = s.deleteLookups(ctx)
	}
	return removed, err
}

// deleteLookups deletes shapes by which nothing can be found any more. Whoever looks by them again makes them known again.
func (s *Store) deleteLookups(ctx context.Context) error {
	err := s.run(ctx, func(ctx context.Context, t *tx) error {
		var idle []int64
		t.rows("idle_lookups", nil, func(rows pgx.Rows) error {
			var id int64
			err := rows.Scan(&id)
			idle = append(idle, id)
			return err
		})
		if err := t.flush(ctx); err != nil {
			return err
		}
		if len(idle) == 0 {
			return errNothing
		}
		t.rows("lock_lookups", []any{idle}, ignore)
		t.exec("next_epoch")
		t.exec("delete_lookups", idle)
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete shapes: %w", err)
	}
	s.lookups.Clear() // other processes notice when one of theirs is not known
	return nil
}

// unlink locks tasks, leaves tally events for those that are tallied, and deletes links of them. It flushes, too.
func (t *tx) unlink(ctx context.Context, tasks uuids) (links int, err error) {
	kinds := map[string]uuids{}
	t.lockStates(tasks, func(s task.State) { kinds[s.Kind] = append(kinds[s.Kind], s.ID) })
	tallied := store.Tallied{}
	t.tallied("tallied_kinds_of", tasks, tallied)
	if err := t.flush(ctx); err != nil {
		return 0, err
	}
	for kind := range tallied {
		t.exec("insert_tally_events", kinds[kind])
	}
	t.rows("delete_links", []any{tasks, store.MaxPurgedLinks}, func(pgx.Rows) error {
		links++
		return nil
	})
	return links, t.flush(ctx)
}

func (t *tx) deleteTasks(ids uuids) {
	t.deleteDeliveries(ids)
	for _, name := range []string{"delete_history", "delete_rare_status", "delete_kinds", "delete_states", "delete_tasks"} {
		t.exec(name, ids)
	}
}
