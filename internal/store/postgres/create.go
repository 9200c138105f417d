package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// What is queued is in memory several times: as arguments, as parameters, as what is sent. So a large batch goes out in chunks
// of so many tasks, and fewer if they bring more than so many bytes.
const (
	createChunk      = 1000
	createChunkBytes = 1 << 20
)

// Create is as in store.Store.
func (s *Store) Create(ctx context.Context, creates []store.Create) ([]store.Created, error) {
	var created []store.Created
	if err := s.registerLookups(ctx, creates); err != nil {
		return nil, fmt.Errorf("create batches: %w", err)
	}
	err := s.runOn(ctx, &s.pool, func(ctx context.Context, t *tx) error {
		keys := t.takeKeys(creates)
		tallied := store.Tallied{}
		t.tallied("tallied_kinds", store.Kinds(creates), tallied)
		t.clock()
		if err := t.flush(ctx); err != nil {
			return err
		}
		if created = store.Replay(creates, keys); !store.AnyFresh(created) {
			return errNothing
		}
		creates, parents, err := t.dedupe(ctx, creates)
		if err != nil {
			return err
		}
		plan := store.PlanCreate(creates, created, store.CreateParams{Now: t.now, Tallied: tallied, Parents: parents})
		if len(plan.Tasks) == 0 {
			return nil
		}
		t.insertBatches(plan)
		if err := t.insertRows(ctx, plan); err != nil {
			return err
		}
		if len(plan.Adopted) > 0 {
			t.exec("adopt_parents", uuids(plan.Adopted))
		}
		t.write(&plan.Changes)
		t.insertShapes(plan.Shapes) // last: who brings the same new ones waits for the commit
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("create batches: %w", err)
	}
	return created, nil
}

func (t *tx) insertBatches(plan *store.CreatePlan) {
	n := len(plan.Batches)
	ids, requesters, scopes := make(uuids, n), make([]string, n), make([]string, n)
	metadata, actions, keys := make([]string, n), make([]*string, n), make([]*string, n)
	for i, c := range plan.Batches {
		b := c.Batch
		ids[i], requesters[i], scopes[i] = b.ID, b.Requester, b.Scope
		metadata[i], actions[i], keys[i] = string(b.Metadata), actionsJSON(b.OnComplete), c.Key.Name()
	}
	t.exec("insert_batches", t.now, ids, requesters, scopes, metadata, actions, keys)
	if n := len(plan.Awaited); n > 0 {
		ids, remaining := make(uuids, n), make([]int32, n)
		for i, a := range plan.Awaited {
			ids[i], remaining[i] = a.Batch, int32(a.Tasks)
		}
		t.exec("insert_progress", ids, remaining)
	}
	ids, kinds := make(uuids, len(plan.Kinds)), make([]string, len(plan.Kinds))
	for i, k := range plan.Kinds {
		ids[i], kinds[i] = k.Batch, k.Kind
	}
	t.exec("insert_kinds", ids, kinds)
}

// insertRows queues the rows of the tasks and sends all but the last chunks.
func (t *tx) insertRows(ctx context.Context, plan *store.CreatePlan) error {
	for first := 0; ; {
		end := first + chunk(plan.Tasks[first:])
		t.insertTasks(plan.Tasks[first:end])
		t.insertStates(plan, first, end)
		if first = end; first == len(plan.Tasks) {
			break
		}
		if err := t.flush(ctx); err != nil {
			return err
		}
	}
	if err := inChunks(ctx, t, plan.Links, t.insertLinks); err != nil {
		return err
	}
	return inChunks(ctx, t, plan.Ready, t.insertReady)
}

// inChunks queues items, and sends all but the last chunk.
func inChunks[T any](ctx context.Context, t *tx, items []T, insert func([]T)) error {
	for ; len(items) > createChunk; items = items[createChunk:] {
		insert(items[:createChunk])
		if err := t.flush(ctx); err != nil {
			return err
		}
	}
	if len(items) > 0 {
		insert(items)
	}
	return nil
}

// chunk is how many of tasks are sent together.
func chunk(tasks []*task.Task) int {
	bytes := 0
	for i, t := range tasks {
		bytes += t.Size()
		if i+1 == createChunk || bytes > createChunkBytes {
			return i + 1
		}
	}
	return len(tasks)
}

func (t *tx) insertTasks(tasks []*task.Task) {
	n := len(tasks)
	ids, batches := make(uuids, n), make(uuids, n)
	localIDs, names, kinds, hosts := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	priorities, expected, barriers := make([]int16, n), make([]*int64, n), make([]bool, n)
	metadata, starts := make([]string, n), make([]string, n)
	rules, successes, failures := make([]*string, n), make([]*string, n), make([]*string, n)
	for i, k := range tasks {
		ids[i], batches[i] = k.ID, k.BatchID
		localIDs[i], names[i], kinds[i], hosts[i] = k.LocalID, k.Name, k.Kind, store.Host(k.OnStart)
		priorities[i], expected[i], barriers[i] = int16(k.Priority), k.ExpectedCount, k.DeadEndBarrier
		metadata[i], starts[i] = string(k.Metadata), string(task.MarshalActions([]task.Action{k.OnStart}))
		rules[i] = rulesJSON(k.Rules)
		successes[i], failures[i] = actionsJSON(k.OnSuccess), actionsJSON(k.OnFailure)
	}
	t.exec("insert_tasks", t.now, ids, batches, localIDs, names, kinds, hosts, priorities, expected, barriers,
		metadata, rules, starts, successes, failures)
}

func rulesJSON(rules []task.Rule) *string {
	if len(rules) == 0 {
		return nil
	}
	return nullJSON(task.MarshalRules(rules))
}

func actionsJSON(actions []task.Action) *string {
	if len(actions) == 0 {
		return nil
	}
	return nullJSON(task.MarshalActions(actions))
}

// insertStates is for the tasks from first up to end.
func (t *tx) insertStates(plan *store.CreatePlan, first, end int) {
	n := end - first
	ids, statuses, unmet := make(uuids, n), make([]int16, n), make([]int32, n)
	reasons, kinds := make([]string, n), make([]string, n)
	timeouts, children, actions, tells := make([]int32, n), make([]bool, n), make([]bool, n), make([]bool, n)
	for i := range n {
		k := plan.State(first + i)
		ids[i], statuses[i], unmet[i], reasons[i], kinds[i] = k.ID, int16(k.Status), int32(k.Unmet), k.FailureReason, k.Kind
		timeouts[i], children[i], actions[i], tells[i] = int32(k.Timeout.Seconds()), k.HasChildren, k.EndActions, k.TellsBatch
	}
	t.exec("insert_states", t.now, ids, statuses, unmet, reasons, kinds, timeouts, children, actions, tells)
}

func (t *tx) insertLinks(links []store.Link) {
	n := len(links)
	parents, children, requires, settled := make(uuids, n), make(uuids, n), make([]bool, n), make([]bool, n)
	for i, l := range links {
		parents[i], children[i], requires[i], settled[i] = l.Parent, l.Child, l.RequiresSuccess, l.Settled
	}
	t.exec("insert_links", parents, children, requires, settled)
}

func (t *tx) insertShapes(shapes []task.Shape) {
	if len(shapes) == 0 {
		return
	}
	n := len(shapes)
	ids, types, kinds := make([]int64, n), make([]int16, n), make([]string, n)
	statuses, fields := make([]int16, n), make([]string, n)
	for i, shape := range shapes {
		names := shape.Fields
		if names == nil {
			names = []string{}
		}
		raw, err := json.Marshal(names)
		if err != nil {
			panic(err) // strings always marshal
		}
		ids[i], types[i], kinds[i] = int64(shape.ID), int16(shape.Type), shape.Kind
		statuses[i], fields[i] = int16(shape.Status), string(raw)
	}
	t.exec("insert_shapes", ids, types, kinds, statuses, fields)
}
