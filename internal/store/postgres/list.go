package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Task is as in store.Store.
func (s *Store) Task(ctx context.Context, id task.ID) (*store.Detail, error) {
	d := &store.Detail{}
	err := s.read(ctx, func(t *tx) {
		t.row("task", []any{id}, func(row pgx.Row) error {
			var err error
			*d, err = scanDetail(row)
			return err
		})
		t.rows("parents", []any{id}, func(rows pgx.Rows) error {
			var dep task.Dependency
			var status int16
			err := rows.Scan((*[16]byte)(&dep.Parent), &dep.RequiresSuccess, &status)
			d.Task.Dependencies = append(d.Task.Dependencies, dep)
			d.Parents = append(d.Parents, task.Status(status))
			return err
		})
		t.rows("deliveries", []any{id}, func(rows pgx.Rows) error {
			var r store.DeliveryRecord
			var trigger, state int16
			err := rows.Scan(&trigger, &r.Place, &state, &r.Failures, &r.LastStatus, &r.LastError)
			r.Trigger, r.State = task.Trigger(trigger), store.DeliveryState(state)
			d.Deliveries = append(d.Deliveries, r)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return d, nil
}

// History is as in store.Store.
func (s *Store) History(ctx context.Context, id task.ID) ([]task.Step, error) {
	var created time.Time
	var parents bool
	var state stateScan
	var steps []task.Step
	err := s.read(ctx, func(t *tx) {
		t.row("life", []any{id}, func(row pgx.Row) error {
			return row.Scan(append([]any{&created, &parents}, state.into()...)...)
		})
		t.rows("history", []any{id}, func(rows pgx.Rows) error {
			var step task.Step
			var to int16
			err := rows.Scan(&step.At, &step.Cause, &to)
			step.At, step.To = step.At.UTC(), task.Status(to)
			steps = append(steps, step)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	found := state.get()
	return task.History(created.UTC(), parents, &found, steps), nil
}

// Unfinished is as in store.Store.
func (s *Store) Unfinished(ctx context.Context, batch task.ID, kind string, fields []string) (store.Unfinished, error) {
	var found store.Unfinished
	err := s.read(ctx, func(t *tx) {
		t.row("batch", []any{batch}, func(row pgx.Row) error { return row.Scan(nil, nil) })
		t.rows("unfinished", []any{batch, kind}, func(rows pgx.Rows) error {
			var id task.ID
			var metadata []byte
			err := rows.Scan((*[16]byte)(&id), &metadata)
			found.Add(id, metadata, fields)
			return err
		})
	})
	if err != nil {
		return store.Unfinished{}, fmt.Errorf("read unfinished tasks: %w", err)
	}
	return found, nil
}

// read runs statements that only read, all of one moment.
func (s *Store) read(ctx context.Context, queue func(t *tx)) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return redact(err)
	}
	defer conn.Release()
	t := &tx{s: s, conn: conn, batch: &pgx.Batch{}}
	t.batch.Queue("begin isolation level repeatable read read only")
	queue(t)
	t.batch.Queue("commit")
	if err := t.flush(ctx); err != nil {
		t.rollback(ctx)
		if errors.Is(err, pgx.ErrNoRows) {
			return store.ErrNotFound
		}
		return redact(err)
	}
	return nil
}

// row queues a statement that must give a row.
func (t *tx) row(name string, args []any, scan func(row pgx.Row) error) {
	t.batch.Queue(t.s.queries.Get(name), args...).QueryRow(scan)
}

// where collects conditions and their arguments.
type where struct {
	conditions []string
	args       []any
}

// add takes a condition with one %s for the place of its argument.
func (w *where) add(condition string, arg any) {
	w.args = append(w.args, arg)
	w.conditions = append(w.conditions, fmt.Sprintf(condition, "$"+strconv.Itoa(len(w.args))))
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// Tasks is as in store.Store.
func (s *Store) Tasks(ctx context.Context, f store.Filter) ([]store.Item, error) {
	var w where
	from := "tasks_by_facts"
	if f.IDs != nil {
		from, w.args = "tasks_by_ids", []any{f.IDs}
	}
	if len(f.Statuses) > 0 {
		statuses := make([]int16, len(f.Statuses))
		for i, status := range f.Statuses {
			statuses[i] = int16(status)
		}
		w.add("s.status = ANY(%s::smallint[])", statuses)
	}
	if f.Kind != "" {
		w.add("t.kind = %s", f.Kind)
	}
	if f.KindPrefix != "" {
		w.add("starts_with(t.kind, %s)", f.KindPrefix)
	}
	if f.NamePart != "" {
		w.add("strpos(t.name, %s) > 0", f.NamePart)
	}
	if f.Batch != (task.ID{}) {
		w.add("t.batch_id = %s", f.Batch)
	}
	if f.Metadata != nil {
		w.add("t.metadata::jsonb @> %s::text::jsonb", string(f.Metadata))
	}
	if f.Timeout != 0 {
		w.add("s.timeout = %s", int(f.Timeout.Seconds()))
	}
	if f.Before != (task.ID{}) {
		w.add("t.id < %s", f.Before)
	}
	sql := s.tasks(from) + w.sql() + fmt.Sprintf(" ORDER BY t.id DESC LIMIT %d OFFSET %d", f.Limit, f.Offset)
	items, err := s.items(ctx, sql, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return items, nil
}

// tasks begins a list.
func (s *Store) tasks(from string) string { return s.queries.Get("tasks") + "\n" + s.queries.Get(from) }

func (s *Store) items(ctx context.Context, sql string, args ...any) ([]store.Item, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, redact(err)
	}
	items, err := pgx.CollectRows(rows, scanItem)
	return items, redact(err)
}

func scanItem(rows pgx.CollectableRow) (store.Item, error) {
	var item store.Item
	var state stateScan
	t := &item.Task
	into := []any{(*[16]byte)(&t.ID), (*[16]byte)(&t.BatchID), &t.LocalID, &t.Name, &t.Priority, &t.ExpectedCount,
		&t.DeadEndBarrier, &t.CreatedAt}
	err := rows.Scan(append(into, state.into()...)...)
	item.State = state.get()
	t.CreatedAt = t.CreatedAt.UTC()
	t.Kind, t.Timeout = item.State.Kind, item.State.Timeout
	return item, err
}

// Batch is as in store.Store.
func (s *Store) Batch(ctx context.Context, id task.ID) (*store.BatchSummary, error) {
	b := &store.BatchSummary{ID: id, Counts: map[task.Status]int{}}
	err := s.read(ctx, func(t *tx) {
		t.row("batch", []any{id}, func(row pgx.Row) error { return row.Scan(&b.Requester, &b.CreatedAt) })
		t.rows("batch_counts", []any{id}, func(rows pgx.Rows) error {
			var status int16
			var n int
			err := rows.Scan(&status, &n)
			b.Counts[task.Status(status)] = n
			return err
		})
		t.row("batch_sums", []any{id}, func(row pgx.Row) error {
			return row.Scan(&b.Tasks, &b.Success, &b.Failures, &b.Expected)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	b.CreatedAt = b.CreatedAt.UTC()
	return b, nil
}

// DAG is as in store.Store.
func (s *Store) DAG(ctx context.Context, batch task.ID) (*store.DAG, error) {
	dag := &store.DAG{}
	err := s.read(ctx, func(t *tx) {
		t.row("batch", []any{batch}, func(row pgx.Row) error { return row.Scan(nil, nil) })
		t.batch.Queue(s.tasks("tasks_by_facts")+" WHERE t.batch_id = $1 ORDER BY t.id", batch).Query(func(rows pgx.Rows) error {
			var err error
			dag.Items, err = pgx.CollectRows(rows, scanItem)
			return err
		})
		t.rows("dag_links", []any{batch}, func(rows pgx.Rows) error {
			var l store.Link
			err := rows.Scan((*[16]byte)(&l.Parent), (*[16]byte)(&l.Child), &l.RequiresSuccess)
			dag.Links = append(dag.Links, l)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read graph: %w", err)
	}
	return dag, nil
}

// Drift is as in store.Store.
func (s *Store) Drift(ctx context.Context) (int, error) {
	var n int
	if err := s.engine.QueryRow(ctx, s.queries.Get("drift")).Scan(&n); err != nil {
		return 0, fmt.Errorf("reconcile gates: %w", redact(err))
	}
	return n, nil
}
