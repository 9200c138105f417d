package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Work is as in store.Store.
func (s *Store) Work(ctx context.Context, owner task.ID) (store.Work, error) {
	var w store.Work
	ready, due := s.cursors.look()
	err := s.again(ctx, func() error {
		var batch pgx.Batch // it is a transaction, as short as can be: every process does this every second
		batch.Queue(s.queries.Get("open_list"))
		batch.Queue(s.queries.Get("work"), s.skew(), owner, due).QueryRow(func(row pgx.Row) error {
			return row.Scan(&w.Pump, &w.Outbox, &w.Due, &w.DeadEnds, &w.Dead)
		})
		return broken(s.engine.SendBatch(ctx, &batch).Close())
	})
	if err != nil {
		return store.Work{}, fmt.Errorf("look for work: %w", err)
	}
	w.Pump = w.Pump || ready
	return w, nil
}

// Heartbeat is as in store.Store.
func (s *Store) Heartbeat(ctx context.Context, owner task.ID, lease time.Duration) error {
	if err := s.exec(ctx, "heartbeat", owner, s.skew(), lease); err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

// Leave is as in store.Store.
func (s *Store) Leave(ctx context.Context, owner task.ID) error {
	if err := s.exec(ctx, "leave", owner); err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	return nil
}

// TakeOver is as in store.Store.
func (s *Store) TakeOver(ctx context.Context, owner task.ID) ([]store.Claim, error) {
	var claims []store.Claim
	err := s.run(ctx, func(ctx context.Context, t *tx) error {
		claims = nil
		if err := t.holdLease(ctx, owner); err != nil { // first: two that take each other for dead must not wait in a circle
			return err
		}
		dead, err := t.ids(ctx, "dead_processes", s.skew(), owner)
		if err != nil {
			return err
		}
		if len(dead) == 0 {
			return errNothing
		}
		lost, err := t.ids(ctx, "lost_claims", dead)
		if err != nil {
			return err
		}
		defer s.cursors.forget() // what they have put into queues, nobody else may know of
		claims, err = t.takeOver(ctx, owner, lost)
		t.exec("delete_processes", dead)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take over claims: %w", err)
	}
	return claims, nil
}

// errNoLease: others have taken this process for dead. It may claim again after its next heartbeat.
var errNoLease = errors.New("this process has lost its lease")

// holdLease flushes, too.
func (t *tx) holdLease(ctx context.Context, owner task.ID) error {
	held, err := t.ids(ctx, "hold_lease", owner)
	if err == nil && len(held) == 0 {
		return errNoLease
	}
	return err
}

func (t *tx) takeOver(ctx context.Context, owner task.ID, lost uuids) ([]store.Claim, error) {
	if len(lost) == 0 {
		return nil, nil
	}
	var states []task.State
	facts := map[task.ID]*task.Task{}
	t.lockStates(lost, func(s task.State) { states = append(states, s) })
	t.clock()
	t.facts(lost, func(k *task.Task) { facts[k.ID] = k })
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	changes, claims := store.PlanTakeOver(states, facts, t.now)
	t.write(&changes)
	taken := make(uuids, len(claims))
	for i, c := range claims {
		taken[i] = c.ID
	}
	t.exec("set_owner", owner, taken)
	return claims, nil
}

// ids runs a statement that gives ids.
func (t *tx) ids(ctx context.Context, name string, args ...any) (uuids, error) {
	var ids uuids
	t.rows(name, args, func(rows pgx.Rows) error {
		var id task.ID
		err := rows.Scan((*[16]byte)(&id))
		ids = append(ids, id)
		return err
	})
	return ids, t.flush(ctx)
}

// Due is as in store.Store.
func (s *Store) Due(ctx context.Context, limit int) (ids []task.ID, more bool, err error) {
	err = s.run(ctx, func(ctx context.Context, t *tx) error {
		t.clock()
		if err := t.flush(ctx); err != nil {
			return err
		}
		var running []task.State
		t.rows("due", []any{t.now, limit}, func(rows pgx.Rows) error {
			var state task.State
			var status int16
			var timeout int32
			var updated pgtype.Timestamptz
			err := rows.Scan((*[16]byte)(&state.ID), &status, &updated, &timeout)
			state.Status, state.LastUpdated = task.Status(status), timeOf(updated)
			state.Timeout = time.Duration(timeout) * time.Second
			running = append(running, state)
			return err
		})
		if err := t.flush(ctx); err != nil {
			return err
		}
		var checks []store.Check
		ids, checks = store.PlanDue(running, t.now)
		more = len(running) >= limit
		if len(checks) == 0 {
			return errNothing
		}
		t.setChecks(checks)
		return nil
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
	deleted := 0
	err = s.run(ctx, func(ctx context.Context, t *tx) error {
		var maybe store.DeadEndRows
		t.rows("maybe_dead_ends", []any{limit}, func(rows pgx.Rows) error {
			var seq int64
			var id task.ID
			err := rows.Scan(&seq, (*[16]byte)(&id))
			maybe.Add(seq, id)
			return err
		})
		if err := t.flush(ctx); err != nil {
			return err
		}
		more = maybe.Len() >= limit
		if maybe.Len() == 0 {
			return errNothing
		}
		found, err := t.ids(ctx, "dead_ends", uuids(maybe.IDs()))
		ids = found
		others := maybe.Others(found)
		deleted = len(others)
		t.exec("delete_dead_ends", others)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("find dead ends: %w", err)
	}
	s.deletions.add(deleted)
	return ids, more, nil
}
