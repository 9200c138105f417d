package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Create is as in store.Store.
func (s *Store) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	var created store.Created
	err := s.write(ctx, func(t *tx) error {
		if key != nil && !t.takeKey(key, b.ID) {
			var err error
			created, err = t.replay(key)
			return err
		}
		tallied := t.tallied(store.Kinds(b))
		b, parents, err := t.dedupe(b)
		if err != nil {
			return err
		}
		if created = (store.Created{Batch: b.ID, Kept: b.Tasks}); len(b.Tasks) == 0 {
			return t.err
		}
		plan := store.PlanCreate(b, store.CreateParams{Now: t.now, Tallied: tallied, Parents: parents})
		created.Finish(&plan, parents)
		batch, now := b.ID.String(), micros(t.now)
		t.exec("insert_batch", batch, b.Requester, now, b.Scope, string(b.Metadata), actionsJSON(b.OnComplete), maybe(key.Name()))
		if plan.Awaited > 0 {
			t.exec("insert_progress", batch, int64(plan.Awaited))
		}
		t.put("insert_kinds", givenTexts(plan.Kinds), batch)
		t.put("insert_tasks", rowsOf(b.Tasks, givenTask), batch, now)
		t.put("insert_states", rowsOf(plan.States, givenState))
		t.put("insert_links", rowsOf(plan.Links, givenLink))
		t.put("insert_shapes", rowsOf(plan.Shapes, givenShape))
		t.put("enqueue", givenIDs(plan.Ready))
		t.put("adopt_parents", givenIDs(plan.Adopted))
		t.write(&plan.Changes)
		return t.err
	})
	if err != nil {
		return store.Created{}, fmt.Errorf("create batch: %w", err)
	}
	return created, nil
}

func givenTask(item **task.Task, to []driver.Value) []driver.Value {
	t := *item
	return append(to, t.ID.String(), t.LocalID, t.Name, t.Kind, store.Host(t.OnStart), int64(t.Priority),
		maybe(t.ExpectedCount), flag(t.DeadEndBarrier), string(t.Metadata), rulesJSON(t.Rules),
		actionsJSON([]task.Action{t.OnStart}), actionsJSON(t.OnSuccess), actionsJSON(t.OnFailure))
}

func givenState(s *task.State, to []driver.Value) []driver.Value {
	return append(to, s.ID.String(), int64(s.Status), int64(s.Unmet), s.Success, s.Failures, int64(s.Attempt),
		int64(s.StartFailures), int64(s.StartStatus), s.StartError, micros(s.ClaimedAt), micros(s.StartedAt),
		micros(s.EndedAt), micros(s.LastUpdated), s.FailureReason, s.Kind, int64(s.Timeout.Seconds()),
		flag(s.HasChildren), flag(s.EndActions), flag(s.TellsBatch))
}

func givenLink(l *store.Link, to []driver.Value) []driver.Value {
	return append(to, l.Parent.String(), l.Child.String(), flag(l.RequiresSuccess), flag(l.Settled))
}

func givenShape(s *task.Shape, to []driver.Value) []driver.Value {
	return append(to, int64(s.ID), int64(s.Type), s.Kind, int64(s.Status), array(s.Fields))
}
