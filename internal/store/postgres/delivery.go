package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// ClaimDeliveries is as in store.Store.
func (s *Store) ClaimDeliveries(ctx context.Context, p store.ClaimDeliveriesParams) (store.ClaimedDeliveries, error) {
	var claimed store.ClaimedDeliveries
	if p.Room.Total <= 0 {
		return store.ClaimedDeliveries{More: true}, nil
	}
	err := s.run(ctx, func(ctx context.Context, t *tx) error {
		claimed = store.ClaimedDeliveries{}
		args := []any{s.skew(), p.Lease, p.Room.Host(""), p.Room.ByHost(), most(p.Room)}
		t.rows("claim_deliveries", args, func(rows pgx.Rows) error {
			var d store.Delivery
			var trigger int16
			var raw []byte
			var counts []int
			var ended pgtype.Timestamptz
			err := rows.Scan((*[16]byte)(&d.ID), (*[16]byte)(&d.Source), &trigger, &d.Place, &d.Host, &d.Failures, &d.EarlierFailures,
				&raw, &counts, &ended)
			if err != nil {
				return err
			}
			d.Trigger = task.Trigger(trigger)
			d.Action, err = store.DeliveredAction(raw, d.Trigger, d.Place, completion(d.Source, counts, ended))
			claimed.Deliveries = append(claimed.Deliveries, d)
			return err
		})
		if err := t.flush(ctx); err != nil { // not with COMMIT, whose answer may be lost, and they with it
			return err
		}
		if len(claimed.Deliveries) == 0 {
			return errNothing
		}
		t.extendDeliveries(claimed.Deliveries, p.Lease)
		return nil
	})
	if err != nil {
		return store.ClaimedDeliveries{}, fmt.Errorf("claim deliveries: %w", err)
	}
	claimed.More = moreDue(claimed.Deliveries, p.Room)
	return claimed, nil
}

// extendDeliveries makes the leases longer where lease is not enough.
func (t *tx) extendDeliveries(deliveries []store.Delivery, lease time.Duration) {
	var ids uuids
	var leases []time.Duration
	for i := range deliveries {
		if d := &deliveries[i]; d.Lease(lease) > lease {
			ids, leases = append(ids, d.ID), append(leases, d.Lease(lease))
		}
	}
	if len(ids) > 0 {
		t.exec("extend_deliveries", t.s.skew(), ids, leases)
	}
}

// completion is nil without counts: the source is a task.
func completion(source task.ID, counts []int, ended pgtype.Timestamptz) *task.Completion {
	if len(counts) == 0 {
		return nil
	}
	return &task.Completion{Batch: source, Success: counts[0], Failure: counts[1], Canceled: counts[2], At: timeOf(ended)}
}

// most is how many are claimed at once. The shares of hosts do not shrink while one statement takes places, as they should;
// so the next claim, which knows of these, finds half of what is free.
func most(room task.Room) int {
	if room.Window > 0 {
		return (room.Total + 1) / 2
	}
	return room.Total
}

// moreDue reports whether somebody's room was used up, so that others may be due.
func moreDue(deliveries []store.Delivery, room task.Room) bool {
	if len(deliveries) >= most(room) {
		return true
	}
	hosts := map[string]int{}
	for _, d := range deliveries {
		hosts[d.Host]++
		if hosts[d.Host] >= room.Host(d.Host) {
			return true
		}
	}
	return false
}

// FinishDeliveries is as in store.Store.
func (s *Store) FinishDeliveries(ctx context.Context, attempts []store.Attempt) error {
	n := len(attempts)
	if n == 0 {
		return nil
	}
	ids, states, retries := make(uuids, n), make([]int16, n), make([]time.Duration, n)
	at, took, statuses := make([]time.Time, n), make([]time.Duration, n), make([]int16, n)
	errs, answers := make([]string, n), make([]string, n)
	for i, a := range attempts {
		ids[i], states[i], retries[i] = a.Delivery, int16(a.State), a.Retry
		at[i], took[i], statuses[i], errs[i], answers[i] = a.At, a.Took, int16(a.Status), a.Error, a.Answer
	}
	err := s.run(ctx, func(_ context.Context, t *tx) error {
		t.exec("lock_deliveries", ids)
		t.exec("finish_deliveries", s.skew(), ids, states, retries, statuses, errs)
		t.exec("insert_attempts", ids, at, took, statuses, errs, answers)
		if repeated := store.Repeated(attempts); len(repeated) > 0 {
			t.exec("trim_attempts", uuids(repeated), store.KeptAttempts)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("finish deliveries: %w", err)
	}
	return nil
}

// RetryDeliveries is as in store.Store.
func (s *Store) RetryDeliveries(ctx context.Context, ids []task.ID) (map[task.ID]store.DeliveryState, error) {
	states := make(map[task.ID]store.DeliveryState, len(ids))
	err := s.runOn(ctx, &s.pool, func(ctx context.Context, t *tx) error {
		clear(states)
		here, err := t.ids(ctx, "keep_batches", uuids(ids), s.skew())
		if err != nil {
			return err
		}
		t.rows("lock_deliveries", []any{here}, func(rows pgx.Rows) error {
			var id task.ID
			var state int16
			err := rows.Scan((*[16]byte)(&id), &state)
			states[id] = store.DeliveryState(state)
			return err
		})
		t.exec("retry_deliveries", s.skew(), here)
		return t.flush(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("retry deliveries: %w", err)
	}
	return states, nil
}

// Delivery is as in store.Store.
func (s *Store) Delivery(ctx context.Context, id task.ID) (*store.DeliveryDetail, error) {
	d := &store.DeliveryDetail{}
	err := s.read(ctx, func(t *tx) {
		sql := s.queries.Get("delivery_items") + "\n" + s.queries.Get("deliveries_by_age") + "\nWHERE d.id = $1"
		t.batch.Queue(sql, id).QueryRow(func(row pgx.Row) error {
			var err error
			d.DeliveryItem, err = scanDelivery(row)
			return err
		})
		t.row("delivery", []any{id}, func(row pgx.Row) error {
			var raw []byte
			var counts []int
			var ended pgtype.Timestamptz
			err := row.Scan(&raw, &counts, &ended)
			if err == nil {
				d.Action, err = store.DeliveredAction(raw, d.Trigger, d.Place, completion(d.Batch, counts, ended))
			}
			return err
		})
		t.rows("attempts", []any{id}, func(rows pgx.Rows) error {
			var a store.AttemptRecord
			err := rows.Scan(&a.At, &a.Took, &a.Status, &a.Error, &a.Answer)
			a.At = a.At.UTC()
			d.Attempts = append(d.Attempts, a)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read delivery: %w", err)
	}
	return d, nil
}

// Where a list of deliveries looks.
const (
	deliveriesByAge   = "deliveries_by_age" // or along an index in its order
	deliveriesPending = "deliveries_pending"
	deliveriesOfTask  = "deliveries_of_task"
	deliveriesOfBatch = "deliveries_of_batch"
)

// Deliveries is as in store.Store.
func (s *Store) Deliveries(ctx context.Context, f store.Filter) (store.Page[store.DeliveryItem], error) {
	walk, err := s.deliveriesFrom(ctx, &f)
	if err != nil {
		return store.Page[store.DeliveryItem]{}, fmt.Errorf("list deliveries: %w", redact(err))
	}
	if walk.from != deliveriesByAge || f.OnlyDead() {
		f.Walk = 0 // it looks at nothing else
	}
	items, walked, err := list(ctx, s, &f, walk, s.deliveriesEnd, s.deliveriesQuery,
		func(row pgx.CollectableRow) (store.DeliveryItem, error) { return scanDelivery(row) }, nil)
	if err != nil {
		return store.Page[store.DeliveryItem]{}, fmt.Errorf("list deliveries: %w", err)
	}
	return store.NewPage(items, walked, &f), nil
}

// deliveriesFrom chooses where to look.
func (s *Store) deliveriesFrom(ctx context.Context, f *store.Filter) (walk, error) {
	switch {
	case f.Task != (task.ID{}):
		return walk{from: deliveriesOfTask}, nil
	case f.Batch != (task.ID{}):
		return walk{from: deliveriesOfBatch}, nil
	case f.OnlyPending():
		var few bool
		sql, args := s.pending("few_pending", f, []any{fewPending})
		if err := s.pool.QueryRow(ctx, sql, args...).Scan(&few); err != nil || few {
			return walk{from: deliveriesPending}, err
		}
	}
	return walk{from: deliveriesByAge}, nil
}

// pending is the statement name, for the host of f if it has one.
func (s *Store) pending(name string, f *store.Filter, args []any) (string, []any) {
	host := ""
	if f.Host != "" {
		args = append(args, f.Host)
		host = fmt.Sprintf(" AND host = $%d", len(args))
	}
	return fmt.Sprintf(s.queries.Get(name), host), args
}

func (s *Store) deliveriesQuery(walk walk, f *store.Filter) (sql string, args []any) {
	from := s.queries.Get(walk.from)
	switch walk.from {
	case deliveriesOfTask:
		args = append(args, f.Task)
	case deliveriesOfBatch:
		args = append(args, f.Batch)
	case deliveriesPending:
		from, args = s.pending(walk.from, f, args)
	}
	w := &where{args: &args}
	switch {
	case f.OnlyDead():
		w.conditions = append(w.conditions, "d.state = 3") // for the index
	case len(f.DeliveryStates) > 0:
		w.add("d.state = ANY(%s::smallint[])", deliveryStates(f.DeliveryStates))
	}
	if f.Host != "" {
		w.add("d.host = %s", f.Host)
	}
	if f.Batch != (task.ID{}) && walk.from == deliveriesOfTask {
		w.conditions = append(w.conditions, "d.source_id IN (SELECT id FROM task WHERE id = $1 AND batch_id = "+w.arg(f.Batch)+")")
	}
	if f.Batch != (task.ID{}) {
		w.here(f.Batch)
	}
	w.between("d.id", f)
	w.notBehind("d.id", walk)
	return s.queries.Get("delivery_items") + "\n" + from + w.sql() + w.page("d.id DESC", f), args
}

func deliveryStates(states []store.DeliveryState) []int16 {
	n := make([]int16, len(states))
	for i, state := range states {
		n[i] = int16(state)
	}
	return n
}

// deliveriesEnd asks for the end of a walk of f.Walk deliveries.
func (s *Store) deliveriesEnd(_ walk, f *store.Filter) (sql string, args []any) {
	w := &where{args: &args}
	w.between("d.id", f)
	return s.queries.Get("walk_deliveries") + w.sql() + w.last("d.id", f), args
}

func scanDelivery(row pgx.Row) (store.DeliveryItem, error) {
	var d store.DeliveryItem
	var record deliveryScan
	var source task.ID
	var batch pgtype.UUID
	err := row.Scan(append(record.into(), (*[16]byte)(&source), &batch, &d.Host, &d.CreatedAt)...)
	d.DeliveryRecord, d.Batch, d.CreatedAt = record.get(), batch.Bytes, d.CreatedAt.UTC()
	d.Of(source)
	return d, err
}

// deliveryScan reads the columns of a delivery's record in the order in which every statement lists them.
type deliveryScan struct {
	record         store.DeliveryRecord
	trigger, state int16
	next           pgtype.Timestamptz
}

func (c *deliveryScan) into() []any {
	d := &c.record
	return []any{(*[16]byte)(&d.ID), &c.trigger, &d.Place, &c.state, &d.Failures, &d.LastStatus, &d.LastError, &c.next}
}

func (c *deliveryScan) get() store.DeliveryRecord {
	d := c.record
	d.Trigger, d.State, d.NextAt = task.Trigger(c.trigger), store.DeliveryState(c.state), timeOf(c.next)
	return d
}
