package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Work is as in store.Store.
func (s *Store) Work(ctx context.Context, owner task.ID) (store.Work, error) {
	var w store.Work
	err := s.using(ctx, s.engine, func(t *tx) error {
		t.rows("work", func(r *row) error {
			w = store.Work{Pump: r.bool(), Outbox: r.bool(), Due: r.bool(), DeadEnds: r.bool(), Dead: r.bool()}
			return nil
		}, micros(s.now()), owner[:])
		return t.err
	})
	if err != nil {
		return store.Work{}, fmt.Errorf("look for work: %w", err)
	}
	return w, nil
}

// Heartbeat is as in store.Store.
func (s *Store) Heartbeat(ctx context.Context, owner task.ID, lease time.Duration) error {
	err := s.write(ctx, func(t *tx) error {
		t.exec("heartbeat", owner[:], micros(t.now.Add(lease)))
		return t.err
	})
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

// Leave is as in store.Store.
func (s *Store) Leave(ctx context.Context, owner task.ID) error {
	err := s.write(ctx, func(t *tx) error {
		t.exec("leave", owner[:])
		return t.err
	})
	if err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	return nil
}

// TakeOver is as in store.Store.
func (s *Store) TakeOver(ctx context.Context, owner task.ID) ([]store.Claim, error) {
	var claims []store.Claim
	err := s.write(ctx, func(t *tx) error {
		var dead, lost []task.ID
		t.rows("dead_processes", appendIDs(&dead), micros(t.now), owner[:])
		t.find("lost_claims", dead, appendIDs(&lost))
		var states []task.State
		t.lockStates(lost, func(s task.State) { states = append(states, s) })
		facts := map[task.ID]*task.Task{}
		t.facts(lost, func(k *task.Task) { facts[k.ID] = k })
		if t.err != nil {
			return t.err
		}
		var changes store.Changes
		changes, claims = store.PlanTakeOver(states, facts, t.now)
		t.write(&changes)
		t.put("set_owner", rowsOf(claims, func(c *store.Claim, to []driver.Value) []driver.Value {
			return append(to, c.ID[:])
		}), owner[:])
		t.put("delete_processes", givenIDs(dead))
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("take over claims: %w", err)
	}
	return claims, nil
}

func appendIDs(to *[]task.ID) func(*row) error {
	return func(r *row) error {
		*to = append(*to, r.id())
		return nil
	}
}

// Due is as in store.Store.
func (s *Store) Due(ctx context.Context, limit int) (ids []task.ID, more bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		var running []task.State
		t.rows("due", func(r *row) error {
			running = append(running, task.State{
				ID: r.id(), Status: task.Status(r.int()), LastUpdated: r.time(), Timeout: time.Duration(r.int64()) * time.Second,
			})
			return nil
		}, micros(t.now), int64(limit))
		var checks []store.Check
		ids, checks = store.PlanDue(running, t.now)
		more = len(running) >= limit
		t.put("set_checks", rowsOf(checks, givenCheck))
		return t.err
	})
	if err != nil {
		return nil, false, fmt.Errorf("find time-outs: %w", err)
	}
	return ids, more, nil
}

// DeadEnds is as in store.Store.
func (s *Store) DeadEnds(ctx context.Context, limit int) (ids []task.ID, more bool, err error) {
	if !s.deadEnds {
		return nil, false, nil
	}
	err = s.write(ctx, func(t *tx) error {
		var maybe store.DeadEndRows
		t.rows("maybe_dead_ends", func(r *row) error {
			maybe.Add(r.int64(), r.id())
			return nil
		}, int64(limit))
		t.find("dead_ends", maybe.IDs(), func(r *row) error {
			ids = append(ids, r.id())
			return nil
		})
		more = maybe.Len() >= limit
		t.put("delete_dead_ends", givenNumbers(maybe.Others(ids)))
		return t.err
	})
	if err != nil {
		return nil, false, fmt.Errorf("find dead ends: %w", err)
	}
	return ids, more, nil
}
