package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Create is as in store.Store.
func (s *Store) Create(ctx context.Context, creates []store.Create) ([]store.Created, error) {
	var created []store.Created
	err := s.write(ctx, func(t *tx) error {
		keys := t.takeKeys(creates)
		if t.err != nil {
			return t.err
		}
		if created = store.Replay(creates, keys); !store.AnyFresh(created) {
			return nil
		}
		tallied := t.tallied(store.Kinds(creates))
		creates, parents, err := t.dedupe(creates)
		if err != nil {
			return err
		}
		plan := store.PlanCreate(creates, created, store.CreateParams{Now: t.now, Tallied: tallied, Parents: parents})
		now := micros(t.now)
		t.put("insert_batches", rowsOf(plan.Batches, givenBatch), now)
		t.put("insert_progress", rowsOf(plan.Awaited, givenAwaited))
		t.put("insert_kinds", rowsOf(plan.Kinds, givenKind))
		t.put("insert_tasks", rowsOf(plan.Tasks, givenTask), now)
		t.put("insert_states", givenRows{len(plan.Tasks), func(i int, to []driver.Value) []driver.Value { return givenState(new(plan.State(i)), to) }})
		t.put("insert_links", rowsOf(plan.Links, givenLink))
		t.put("insert_shapes", rowsOf(plan.Shapes, givenShape))
		t.put("insert_ready", rowsOf(plan.Ready, givenReady))
		t.put("adopt_parents", givenIDs(plan.Adopted))
		t.write(&plan.Changes)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("create batches: %w", err)
	}
	return created, nil
}

func givenBatch(c *store.Create, to []driver.Value) []driver.Value {
	b := c.Batch
	return append(to, b.ID[:], b.Requester, b.Scope, string(b.Metadata), actionsJSON(b.OnComplete), maybe(c.Key.Name()))
}

func givenAwaited(a *store.Awaited, to []driver.Value) []driver.Value {
	return append(to, a.Batch[:], int64(a.Tasks))
}

func givenKind(k *store.BatchKind, to []driver.Value) []driver.Value {
	return append(to, k.Batch[:], k.Kind)
}

func givenTask(item **task.Task, to []driver.Value) []driver.Value {
	t := *item
	return append(to, t.ID[:], t.BatchID[:], t.LocalID, t.Name, t.Kind, store.Host(t.OnStart), int64(t.Priority),
		maybe(t.ExpectedCount), flag(t.DeadEndBarrier), string(t.Metadata), rulesJSON(t.Rules),
		actionsJSON([]task.Action{t.OnStart}), actionsJSON(t.OnSuccess), actionsJSON(t.OnFailure))
}

func givenState(s *task.State, to []driver.Value) []driver.Value {
	return append(to, s.ID[:], int64(s.Status), int64(s.Unmet), s.Success, s.Failures, int64(s.Attempt),
		int64(s.StartFailures), int64(s.StartStatus), s.StartError, micros(s.ClaimedAt), micros(s.StartedAt),
		micros(s.EndedAt), micros(s.LastUpdated), s.FailureReason, s.Kind, int64(s.Timeout.Seconds()),
		flag(s.HasChildren), flag(s.EndActions), flag(s.TellsBatch))
}

func givenLink(l *store.Link, to []driver.Value) []driver.Value {
	return append(to, l.Parent[:], l.Child[:], flag(l.RequiresSuccess), flag(l.Settled))
}

func givenShape(s *task.Shape, to []driver.Value) []driver.Value {
	return append(to, int64(s.ID), int64(s.Type), s.Kind, int64(s.Status), array(s.Fields))
}
