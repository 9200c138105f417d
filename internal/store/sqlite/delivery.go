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
	if p.Room.Host("") == 0 {
		return store.ClaimedDeliveries{More: true}, nil
	}
	err := s.write(ctx, func(t *tx) error {
		all := t.dueDeliveries(p.Room)
		slices.SortFunc(all, func(a, b due) int {
			return cmp.Or(a.at.Compare(b.at), slices.Compare(a.Source[:], b.Source[:]), cmp.Compare(a.Place, b.Place))
		})
		hosts := map[string]int{}
		for i := range all {
			d := &all[i]
			if len(claimed.Deliveries) >= p.Room.Total || hosts[d.Host] >= p.Room.Host(d.Host) {
				continue
			}
			hosts[d.Host]++
			if err := d.Load(d.actions, &d.completion); err != nil {
				return err
			}
			claimed.Deliveries = append(claimed.Deliveries, d.Delivery)
		}
		claimed.More = len(claimed.Deliveries) < len(all)
		t.put("claim_deliveries", rowsOf(claimed.Deliveries, func(d *store.Delivery, to []driver.Value) []driver.Value {
			return append(to, d.Source.String(), int64(d.Trigger), int64(d.Place), int64(store.DeliveryPending),
				micros(t.now.Add(d.Lease(p.Lease))), int64(0), "")
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
	for host := range room.Busy {
		if room.Host(host) == 0 {
			full = append(full, host)
		}
	}
	var all []due
	t.get("due_deliveries", givenTexts(full), func(r *row) error {
		d := due{
			Delivery: store.Delivery{
				Source: r.id(), Trigger: task.Trigger(r.int()), Place: r.int(), Host: r.text(), Failures: r.int(),
			},
			at: r.time(), actions: r.raw(),
		}
		d.completion = task.Completion{
			Batch: d.Source, Success: r.int(), Failure: r.int(), Canceled: r.int(), At: r.time(),
		}
		all = append(all, d)
		return nil
	}, micros(t.now), int64(room.Host("")+1))
	return all
}

// FinishDeliveries is as in store.Store.
func (s *Store) FinishDeliveries(ctx context.Context, attempts []store.Attempt) error {
	err := s.write(ctx, func(t *tx) error {
		t.put("finish_deliveries", rowsOf(attempts, func(a *store.Attempt, to []driver.Value) []driver.Value {
			return append(to, a.Source.String(), int64(a.Trigger), int64(a.Place), int64(a.State),
				micros(t.now.Add(a.Retry)), int64(a.Status), a.Error)
		}))
		return t.err
	})
	if err != nil {
		return fmt.Errorf("finish deliveries: %w", err)
	}
	return nil
}
