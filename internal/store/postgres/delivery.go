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
		hosts, limits := make([]string, 0, len(p.Room.Busy)), make([]int32, 0, len(p.Room.Busy))
		for host := range p.Room.Busy {
			hosts, limits = append(hosts, host), append(limits, int32(p.Room.Host(host)))
		}
		args := []any{s.skew(), p.Lease, p.Room.Host(""), hosts, limits, p.Room.Total}
		t.rows("claim_deliveries", args, func(rows pgx.Rows) error {
			var d store.Delivery
			var trigger int16
			var raw []byte
			var counts []int
			var ended pgtype.Timestamptz
			err := rows.Scan((*[16]byte)(&d.Source), &trigger, &d.Place, &d.Host, &d.Failures, &raw, &counts, &ended)
			if err != nil {
				return err
			}
			d.Trigger = task.Trigger(trigger)
			err = d.Load(raw, completion(d.Source, counts, ended))
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
	var triggers, places []int16
	var leases []time.Duration
	for i := range deliveries {
		if d := &deliveries[i]; d.Lease(lease) > lease {
			ids, triggers, places = append(ids, d.Source), append(triggers, int16(d.Trigger)), append(places, int16(d.Place))
			leases = append(leases, d.Lease(lease))
		}
	}
	if len(ids) > 0 {
		t.exec("extend_deliveries", t.s.skew(), ids, triggers, places, leases)
	}
}

// completion is nil without counts: the source is a task.
func completion(source task.ID, counts []int, ended pgtype.Timestamptz) *task.Completion {
	if len(counts) == 0 {
		return nil
	}
	return &task.Completion{Batch: source, Success: counts[0], Failure: counts[1], Canceled: counts[2], At: timeOf(ended)}
}

// moreDue reports whether somebody's room was used up, so that others may be due.
func moreDue(deliveries []store.Delivery, room task.Room) bool {
	if len(deliveries) >= room.Total {
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
	ids, triggers, places, states := make(uuids, n), make([]int16, n), make([]int16, n), make([]int16, n)
	retries, statuses, errs := make([]time.Duration, n), make([]int16, n), make([]string, n)
	for i, a := range attempts {
		ids[i], triggers[i], places[i], states[i] = a.Source, int16(a.Trigger), int16(a.Place), int16(a.State)
		retries[i], statuses[i], errs[i] = a.Retry, int16(a.Status), a.Error
	}
	err := s.run(ctx, func(_ context.Context, t *tx) error {
		t.exec("lock_deliveries", ids, triggers, places)
		t.exec("finish_deliveries", s.skew(), ids, triggers, places, states, retries, statuses, errs)
		return nil
	})
	if err != nil {
		return fmt.Errorf("finish deliveries: %w", err)
	}
	return nil
}
