package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// due is a delivery that is due, or was leased by somebody whose lease has run out.
type due struct {
	store.Delivery
	at         time.Time
	actions    []byte
	completion task.Completion // of a batch
}

// ClaimDeliveries is as in store.Store. What was due first goes first.
func (s *Store) ClaimDeliveries(ctx context.Context, p store.ClaimDeliveriesParams) (store.ClaimedDeliveries, error) {
	var claimed store.ClaimedDeliveries
	if p.Room.Total <= 0 {
		return store.ClaimedDeliveries{More: true}, nil
	}
	err := s.write(ctx, func(t *tx) error {
		all := t.dueDeliveries(p.Room)
		slices.SortFunc(all, func(a, b due) int {
			return cmp.Or(a.at.Compare(b.at), slices.Compare(a.Source[:], b.Source[:]), cmp.Compare(a.Place, b.Place))
		})
		room := p.Room.Own()
		for i := range all {
			d := &all[i]
			if room.Host(d.Host) == 0 {
				continue
			}
			room.Take(d.Host)
			var err error
			if d.Action, err = store.DeliveredAction(d.actions, d.Trigger, d.Place, &d.completion); err != nil {
				return err
			}
			claimed.Deliveries = append(claimed.Deliveries, d.Delivery)
		}
		claimed.More = len(claimed.Deliveries) < len(all)
		t.put("claim_deliveries", rowsOf(claimed.Deliveries, func(d *store.Delivery, to []driver.Value) []driver.Value {
			return append(to, d.ID[:], int64(store.DeliveryPending), micros(t.now.Add(d.Lease(p.Lease))))
		}))
		return t.err
	})
	if err != nil {
		return store.ClaimedDeliveries{}, fmt.Errorf("claim deliveries: %w", err)
	}
	return claimed, nil
}

// dueDeliveries loads one more for a host than may go to any, so that it is known whether there are more.
func (t *tx) dueDeliveries(room task.Room) []due {
	var full []string
	for _, host := range room.Apart() {
		if room.Host(host) == 0 {
			full = append(full, host)
		}
	}
	var all []due
	t.get("due_deliveries", givenTexts(full), func(r *row) error {
		d := due{
			Delivery: store.Delivery{
				ID: r.id(), Source: r.id(), Trigger: task.Trigger(r.int()), Place: r.int(), Host: r.text(), Failures: r.int(),
				EarlierFailures: r.int(),
			},
			at: r.time(), actions: r.raw(),
		}
		d.completion = r.completion(d.Source)
		all = append(all, d)
		return nil
	}, micros(t.now), int64(room.Host("")+1))
	return all
}

// completion is of no meaning when the source is a task.
func (r *row) completion(source task.ID) task.Completion {
	return task.Completion{Batch: source, Success: r.int(), Failure: r.int(), Canceled: r.int(), At: r.time()}
}

// FinishDeliveries is as in store.Store.
func (s *Store) FinishDeliveries(ctx context.Context, attempts []store.Attempt) error {
	err := s.write(ctx, func(t *tx) error {
		given := rowsOf(attempts, func(a *store.Attempt, to []driver.Value) []driver.Value {
			return append(to, a.Delivery[:], int64(a.State), micros(t.now.Add(a.Retry)), int64(a.Status), a.Error, micros(a.At),
				a.Took.Microseconds(), a.Answer)
		})
		t.put("finish_deliveries", given)
		t.put("insert_attempts", given)
		t.put("trim_attempts", givenIDs(store.Repeated(attempts)), int64(store.KeptAttempts))
		return t.err
	})
	if err != nil {
		return fmt.Errorf("finish deliveries: %w", err)
	}
	return nil
}

// RetryDeliveries is as in store.Store.
func (s *Store) RetryDeliveries(ctx context.Context, ids []task.ID) (map[task.ID]store.DeliveryState, error) {
	states := make(map[task.ID]store.DeliveryState, len(ids))
	err := s.write(ctx, func(t *tx) error {
		t.put("keep_batches", givenIDs(ids), micros(t.now))
		var here []task.ID
		t.find("kept_deliveries", ids, func(r *row) error {
			id := r.id()
			here, states[id] = append(here, id), store.DeliveryState(r.int())
			return nil
		})
		t.put("retry_deliveries", givenIDs(here), micros(t.now))
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("retry deliveries: %w", err)
	}
	return states, nil
}

// Delivery is as in store.Store.
func (s *Store) Delivery(ctx context.Context, id task.ID) (*store.DeliveryDetail, error) {
	var d store.DeliveryDetail
	err := s.read(ctx, func(t *tx) error {
		found := false
		t.query("delivery_items", s.queries.Get("delivery_items")+"\n"+s.queries.Get(deliveriesByAge)+"\nWHERE d.id = ?1", func(r *row) error {
			found, d.DeliveryItem = true, r.deliveryItem()
			return nil
		}, id[:])
		if t.err == nil && !found {
			return store.ErrNotFound
		}
		t.rows("delivery", func(r *row) error {
			raw, completion := r.raw(), r.completion(d.Batch)
			var err error
			d.Action, err = store.DeliveredAction(raw, d.Trigger, d.Place, &completion)
			return err
		}, id[:])
		t.rows("attempts", func(r *row) error {
			d.Attempts = append(d.Attempts, store.AttemptRecord{
				At: r.time(), Took: time.Duration(r.int64()) * time.Microsecond, Status: r.int(), Error: r.text(), Answer: r.text(),
			})
			return nil
		}, id[:])
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read delivery: %w", err)
	}
	return &d, nil
}

// Where a list of deliveries looks.
const (
	deliveriesByAge    = "deliveries_by_age"
	deliveriesDead     = "deliveries_dead"
	deliveriesDeadHost = "deliveries_dead_host"
	deliveriesPending  = "deliveries_pending"
	deliveriesOfTask   = "deliveries_of_task"
	deliveriesOfBatch  = "deliveries_of_batch"
)

// Deliveries is as in store.Store.
func (s *Store) Deliveries(ctx context.Context, f store.Filter) (store.Page[store.DeliveryItem], error) {
	var items []store.DeliveryItem
	var walked task.ID
	err := s.list(ctx, func(t *tx) error {
		walk := t.deliveriesFrom(&f)
		if f.Walks() && walk.from == deliveriesByAge {
			sql, args := s.deliveriesEnd(&f)
			walked = t.end(&walk, sql, args)
		}
		sql, args := s.deliveriesQuery(walk, &f)
		t.query(walk.from, sql, func(r *row) error {
			items = append(items, r.deliveryItem())
			return nil
		}, args...)
		return t.err
	})
	if err != nil {
		return store.Page[store.DeliveryItem]{}, fmt.Errorf("list deliveries: %w", err)
	}
	return store.NewPage(items, walked, &f), nil
}

// deliveriesFrom chooses where to look.
func (t *tx) deliveriesFrom(f *store.Filter) walk {
	switch {
	case f.Task != (task.ID{}):
		return walk{from: deliveriesOfTask}
	case f.Batch != (task.ID{}):
		return walk{from: deliveriesOfBatch}
	case f.OnlyDead() && f.Host != "":
		return walk{from: deliveriesDeadHost}
	case f.OnlyDead():
		return walk{from: deliveriesDead}
	case f.OnlyPending() && t.fewPending(f):
		return walk{from: deliveriesPending}
	}
	return walk{from: deliveriesByAge}
}

func (t *tx) fewPending(f *store.Filter) bool {
	few := false
	args := []driver.Value{int64(fewPending)}
	w := &where{args: &args}
	host := ""
	if f.Host != "" {
		host = " AND d.host = " + w.arg(f.Host)
	}
	t.query("few_pending", fmt.Sprintf(t.s.queries.Get("few_pending"), host), func(r *row) error {
		few = r.bool()
		return nil
	}, args...)
	return few
}

func (s *Store) deliveriesQuery(walk walk, f *store.Filter) (sql string, args []driver.Value) {
	w := &where{args: &args}
	switch walk.from {
	case deliveriesOfTask:
		w.add("d.source_id = %s", f.Task[:])
		if f.Batch != (task.ID{}) {
			w.conditions = append(w.conditions, "d.source_id IN (SELECT id FROM task WHERE id = ?1 AND batch_id = "+w.arg(f.Batch[:])+")")
		}
	case deliveriesOfBatch:
		w.arg(f.Batch[:])
	case deliveriesDead, deliveriesDeadHost:
		w.conditions = append(w.conditions, "d.state = 3") // what the index is for
	case deliveriesPending:
		w.conditions = append(w.conditions, "d.state = 1")
	}
	if len(f.DeliveryStates) > 0 {
		w.add("d.state IN (SELECT value FROM json_each(%s))", array(f.DeliveryStates))
	}
	if f.Host != "" {
		w.add("d.host = %s", f.Host)
	}
	if f.Batch != (task.ID{}) {
		w.here(f.Batch)
	}
	w.between("d.id", f)
	w.notBehind("d.id", walk)
	return s.queries.Get("delivery_items") + "\n" + s.queries.Get(walk.from) + w.sql() + "\nORDER BY d.id DESC" + w.page(f), args
}

// deliveriesEnd asks for the end of a walk of f.Walk deliveries.
func (s *Store) deliveriesEnd(f *store.Filter) (sql string, args []driver.Value) {
	w := &where{args: &args}
	w.between("d.id", f)
	return s.queries.Get("walk_deliveries") + w.sql() + "\nORDER BY d.id DESC" + w.last(f), args
}

// delivery reads the columns of a delivery's record in the order in which every statement lists them.
func (r *row) delivery() store.DeliveryRecord {
	return store.DeliveryRecord{
		ID: r.id(), Trigger: task.Trigger(r.int()), Place: r.int(), State: store.DeliveryState(r.int()), Failures: r.int(),
		LastStatus: r.int(), LastError: r.text(), NextAt: r.time(),
	}
}

func (r *row) deliveryItem() store.DeliveryItem {
	d := store.DeliveryItem{DeliveryRecord: r.delivery()}
	source := r.id()
	d.Batch, d.Host, d.CreatedAt = r.id(), r.text(), r.time()
	d.Of(source)
	return d
}
