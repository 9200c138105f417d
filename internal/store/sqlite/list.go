package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Task is as in store.Store.
func (s *Store) Task(ctx context.Context, id task.ID) (*store.Detail, error) {
	var d *store.Detail
	err := s.read(ctx, func(t *tx) error {
		t.rows("task", func(r *row) error {
			detail, err := r.detail()
			d = &detail
			return err
		}, id.String())
		if t.err == nil && d == nil {
			return store.ErrNotFound
		}
		t.rows("parents", func(r *row) error {
			d.Task.Dependencies = append(d.Task.Dependencies, task.Dependency{Parent: r.id(), RequiresSuccess: r.bool()})
			d.Parents = append(d.Parents, task.Status(r.int()))
			return nil
		}, id.String())
		t.rows("deliveries", func(r *row) error {
			d.Deliveries = append(d.Deliveries, r.delivery())
			return nil
		}, id.String())
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return d, nil
}

// History is as in store.Store.
func (s *Store) History(ctx context.Context, id task.ID) ([]task.Step, error) {
	var steps []task.Step
	err := s.read(ctx, func(t *tx) error {
		var created time.Time
		var parents bool
		var state task.State
		t.rows("life", func(r *row) error {
			created, parents, state = r.time(), r.bool(), r.state()
			return nil
		}, id.String())
		if t.err == nil && created.IsZero() {
			return store.ErrNotFound
		}
		var written []task.Step
		t.rows("history", func(r *row) error {
			step := task.Step{At: r.time()}
			step.Cause, step.To = task.Cause(r.text()), task.Status(r.int())
			written = append(written, step)
			return nil
		}, id.String())
		steps = task.History(created, parents, &state, written)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return steps, nil
}

// Unfinished is as in store.Store.
func (s *Store) Unfinished(ctx context.Context, batch task.ID, kind string, fields []string) (store.Unfinished, error) {
	var found store.Unfinished
	err := s.read(ctx, func(t *tx) error {
		if t.batch(batch) == nil && t.err == nil {
			return store.ErrNotFound
		}
		t.rows("unfinished", func(r *row) error {
			found.Add(r.id(), r.raw(), fields)
			return nil
		}, batch.String(), kind)
		return t.err
	})
	if err != nil {
		return store.Unfinished{}, fmt.Errorf("read unfinished tasks: %w", err)
	}
	return found, nil
}

// where collects conditions and their arguments.
type where struct {
	conditions []string
	args       []driver.Value
}

// add takes a condition with one %s for the place of its argument.
func (w *where) add(condition string, arg driver.Value) {
	w.args = append(w.args, arg)
	w.conditions = append(w.conditions, fmt.Sprintf(condition, "?"+strconv.Itoa(len(w.args))))
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return "\nWHERE " + strings.Join(w.conditions, " AND ")
}

// Where a list is walked from the newest task on.
const (
	byFacts   = "tasks_by_facts"
	byIDs     = "tasks_by_ids"
	byState   = "tasks_by_state"
	byPlace   = "tasks_by_place"
	byRest    = "tasks_by_rest"
	byRunning = "tasks_by_running"
)

const (
	// afterAll is greater than every id.
	afterAll = "g"
	// fewReady is up to how many ready tasks a list sorts.
	fewReady = 10_000
)

// Tasks is as in store.Store.
func (s *Store) Tasks(ctx context.Context, f store.Filter) ([]store.Item, error) {
	var items []store.Item
	err := s.read(ctx, func(t *tx) error {
		from := t.from(&f)
		w := &where{}
		order := w.begin(from, &f)
		w.filter(from, &f)
		n := len(w.args)
		w.args = append(w.args, int64(f.Limit), int64(f.Offset))
		sql := fmt.Sprintf("%s\n%s%s%s\nLIMIT ?%d OFFSET ?%d",
			s.queries.Get("tasks"), s.queries.Get(from), w.sql(), order, n+1, n+2)
		t.query(from, sql, appendItems(&items), w.args...)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return items, nil
}

// from chooses where to look. No index has every status, so a rare one is searched for where there is least else.
func (t *tx) from(f *store.Filter) string {
	only := func(statuses ...task.Status) bool {
		return len(f.Statuses) > 0 &&
			!slices.ContainsFunc(f.Statuses, func(s task.Status) bool { return !slices.Contains(statuses, s) })
	}
	switch {
	case f.IDs != nil:
		return byIDs
	case only(task.Claimed, task.Running):
		return byRunning
	case f.Batch != (task.ID{}):
		return byFacts
	case only(task.Waiting, task.Paused, task.Failure, task.Canceled):
		return byRest
	case only(task.Pending, task.Claimed, task.Running) && t.fewReady():
		return byPlace
	case f.Kind == "" && (len(f.Statuses) > 0 || f.Timeout != 0):
		return byState
	}
	return byFacts
}

func (t *tx) fewReady() bool {
	few := false
	t.rows("few_ready", func(r *row) error {
		few = r.bool()
		return nil
	}, int64(fewReady))
	return few
}

// begin adds where to begin, and returns the order.
func (w *where) begin(from string, f *store.Filter) string {
	before := afterAll
	if f.Before != (task.ID{}) {
		before = f.Before.String()
	}
	id := "t.id"
	switch from {
	case byPlace, byRest:
		w.args = append(w.args, before, array(f.Statuses))
		return ""
	case byRunning:
		id = "p.task_id"
	case byState:
		id = "s.id"
	case byIDs:
		w.args = append(w.args, array(f.IDs))
	}
	w.add(id+" < %s", before)
	return "\nORDER BY " + id + " DESC"
}

// filter adds the conditions of f, but where to begin.
func (w *where) filter(from string, f *store.Filter) {
	kind := "s.kind"
	if from == byFacts {
		kind = "t.kind"
	}
	if len(f.Statuses) > 0 {
		w.add("s.status IN (SELECT value FROM json_each(%s))", array(f.Statuses))
	}
	if f.Kind != "" {
		w.add(kind+" = %s", f.Kind)
	}
	if f.KindPrefix != "" {
		w.add("instr("+kind+", %s) = 1", f.KindPrefix)
	}
	if f.NamePart != "" {
		w.add("instr(t.name, %s) > 0", f.NamePart)
	}
	if f.Batch != (task.ID{}) {
		w.add("t.batch_id = %s", f.Batch.String())
	}
	if f.Metadata != nil {
		w.add("metadata_contains(t.metadata, %s)", string(f.Metadata))
	}
	if f.Timeout != 0 {
		w.add("s.timeout = %s", int64(f.Timeout.Seconds()))
	}
}

func appendItems(to *[]store.Item) func(*row) error {
	return func(r *row) error {
		k := task.Task{
			ID: r.id(), BatchID: r.id(), LocalID: r.text(), Name: r.text(), Priority: r.int(), ExpectedCount: r.maybe(),
			DeadEndBarrier: r.bool(), CreatedAt: r.time(),
		}
		state := r.state()
		k.Kind, k.Timeout = state.Kind, state.Timeout
		*to = append(*to, store.Item{Task: k, State: state})
		return nil
	}
}

// Batch is as in store.Store.
func (s *Store) Batch(ctx context.Context, id task.ID) (*store.BatchSummary, error) {
	var b *store.BatchSummary
	err := s.read(ctx, func(t *tx) error {
		if b = t.batch(id); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		t.rows("batch_counts", func(r *row) error {
			for _, status := range task.Statuses() {
				if n := r.int(); n > 0 {
					b.Counts[status] = n
				}
			}
			return nil
		}, id.String())
		t.rows("batch_sums", func(r *row) error {
			b.Tasks = r.int()
			said := r.int()
			b.Success, b.Failures = r.sum(), r.sum()
			if expected := r.sum(); said == b.Tasks {
				b.Expected = &expected
			}
			return nil
		}, id.String())
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	return b, nil
}

// batch reads the facts of a batch, nil if there is none.
func (t *tx) batch(id task.ID) *store.BatchSummary {
	var b *store.BatchSummary
	t.rows("batch", func(r *row) error {
		b = &store.BatchSummary{ID: id, Requester: r.text(), CreatedAt: r.time(), Counts: map[task.Status]int{}}
		return nil
	}, id.String())
	return b
}

// sum reads a sum in two parts. It stops at the greatest number, like the counts themselves.
func (r *row) sum() int64 {
	high, low := r.int64(), r.int64()
	if high += low >> 32; high > math.MaxInt32 {
		return math.MaxInt64
	}
	return high<<32 | low&math.MaxUint32
}

// DAG is as in store.Store.
func (s *Store) DAG(ctx context.Context, batch task.ID) (*store.DAG, error) {
	dag := &store.DAG{}
	err := s.read(ctx, func(t *tx) error {
		if b := t.batch(batch); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		sql := t.s.queries.Get("tasks") + "\n" + t.s.queries.Get("tasks_by_facts") + "\nWHERE t.batch_id = ? ORDER BY t.id"
		t.query("tasks", sql, appendItems(&dag.Items), batch.String())
		t.rows("dag_links", func(r *row) error {
			dag.Links = append(dag.Links, store.Link{Parent: r.id(), Child: r.id(), RequiresSuccess: r.bool()})
			return nil
		}, batch.String())
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read graph: %w", err)
	}
	return dag, nil
}

// Drift is as in store.Store.
func (s *Store) Drift(ctx context.Context) (int, error) {
	n := 0
	err := s.read(ctx, func(t *tx) error {
		t.rows("drift", func(r *row) error {
			n = r.int()
			return nil
		})
		return t.err
	})
	if err != nil {
		return 0, fmt.Errorf("reconcile gates: %w", err)
	}
	return n, nil
}
