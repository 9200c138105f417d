package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// retentionChunk bounds the batches, or tasks, of one transaction to some 10 ms: nobody else writes meanwhile.
const retentionChunk = 250

// Expire is as in store.Store. What is over stays over, but for what [Store.RetryDeliveries] makes pending again, and that
// keeps the batch alive; so batches are looked at beside who writes, however long it takes.
func (s *Store) Expire(ctx context.Context, keep time.Duration, limit int) (store.Removed, error) {
	limit = min(limit, retentionChunk)
	aged, err := s.aged(ctx, keep, limit)
	if err != nil {
		return store.Removed{}, fmt.Errorf("find old batches: %w", err)
	}
	removed := store.Removed{More: aged.n == limit}
	if aged.n == 0 {
		return removed, nil
	}
	err = s.write(ctx, func(t *tx) error {
		t.put("keep_alive", rowsOf(aged.alive, givenCheck))
		var gone []expired
		t.get("expire_batches", givenIDs(aged.over), func(r *row) error {
			gone = append(gone, expired{r.id(), r.next()})
			return nil
		}, micros(aged.before))
		removed.Batches = len(gone)
		ids := make([]task.ID, len(gone))
		for i := range gone {
			ids[i] = gone[i].id
		}
		t.put("insert_expired", givenIDs(ids))
		t.put("delete_keys", rowsOf(gone, func(e *expired, to []driver.Value) []driver.Value {
			return append(to, e.key, e.id[:])
		}))
		t.put("delete_progress", givenIDs(ids))
		t.deleteDeliveries(ids)
		return t.err
	})
	if err != nil {
		return store.Removed{}, fmt.Errorf("expire batches: %w", err)
	}
	return removed, nil
}

// expired is a batch that is gone, with its key, nil for none.
type expired struct {
	id  task.ID
	key driver.Value
}

// aged are the batches that were looked at: those that were over before a time, and those that were needed until later.
type aged struct {
	n      int
	before time.Time
	over   []task.ID
	alive  []store.Check
}

func (s *Store) aged(ctx context.Context, keep time.Duration, limit int) (aged, error) {
	now := s.now()
	found := aged{before: now.Add(-keep)}
	err := s.read(ctx, func(t *tx) error {
		t.rows("aged_batches", func(r *row) error {
			id, until := r.id(), r.time()
			if found.n++; until.After(found.before) {
				found.alive = append(found.alive, store.Check{ID: id, At: until})
			} else {
				found.over = append(found.over, id)
			}
			return nil
		}, micros(now), micros(found.before), int64(limit))
		return t.err
	})
	return found, err
}

// deleteDeliveries deletes those of tasks or batches.
func (t *tx) deleteDeliveries(sources []task.ID) {
	t.put("delete_attempts", givenIDs(sources))
	t.put("delete_deliveries", givenIDs(sources))
}

// Purge is as in store.Store.
func (s *Store) Purge(ctx context.Context, limit int) (store.Removed, error) {
	limit = min(limit, retentionChunk)
	var removed store.Removed
	if idle, err := s.nothingExpired(ctx); err != nil || idle {
		return removed, err
	}
	err := s.write(ctx, func(t *tx) error {
		var batches, tasks []task.ID
		t.rows("expired_batches", appendID(&batches), int64(limit))
		t.get("expired_tasks", givenIDs(batches), appendID(&tasks), int64(limit))
		removed.More = len(batches) == limit || len(tasks) == limit
		if !store.Unlinked(t.unlink(tasks)) { // perhaps not all; the tasks have to wait
			removed.More = true
			return t.err
		}
		removed.Tasks = len(tasks)
		t.deleteTasks(tasks)
		t.put("delete_expired", givenIDs(batches))
		if !removed.More {
			t.deleteLookups()
		}
		return t.err
	})
	if err != nil {
		return store.Removed{}, fmt.Errorf("purge tasks: %w", err)
	}
	return removed, nil
}

// nothingExpired asks a reader, so that nobody who writes waits for nothing.
func (s *Store) nothingExpired(ctx context.Context) (bool, error) {
	var batches []task.ID
	err := s.read(ctx, func(t *tx) error {
		t.rows("expired_batches", appendID(&batches), int64(1))
		return t.err
	})
	if err != nil {
		return false, fmt.Errorf("find expired batches: %w", err)
	}
	return len(batches) == 0, nil
}

func appendID(to *[]task.ID) func(*row) error {
	return func(r *row) error {
		*to = append(*to, r.id())
		return nil
	}
}

// unlink leaves tally events for those of tasks that are tallied, and deletes links of them.
func (t *tx) unlink(tasks []task.ID) (links int) {
	kinds := map[string][]task.ID{}
	t.lockStates(tasks, func(s task.State) { kinds[s.Kind] = append(kinds[s.Kind], s.ID) })
	for kind := range t.tallied(slices.Collect(maps.Keys(kinds))) {
		t.put("insert_tally_events", givenIDs(kinds[kind]))
	}
	t.get("delete_links", givenIDs(tasks), func(*row) error {
		links++
		return nil
	}, int64(store.MaxPurgedLinks))
	return links
}

// deleteLookups deletes shapes by which nothing can be found any more. Whoever looks by them again makes them known again.
func (t *tx) deleteLookups() {
	deleted := false
	t.rows("delete_lookups", func(*row) error {
		deleted = true
		return nil
	})
	if deleted {
		t.committed = func() { t.s.shapes = store.NewShapes() }
	}
}

func (t *tx) deleteTasks(ids []task.ID) {
	t.deleteDeliveries(ids)
	for _, name := range []string{"delete_history", "delete_kinds", "delete_states", "delete_tasks"} {
		t.put(name, givenIDs(ids))
	}
}
