package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		t.deliveries(id, &d.Deliveries)
	})
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return d, nil
}

// deliveries queues the reading of what is known of those of a task, or of a batch.
func (t *tx) deliveries(source task.ID, into *[]store.DeliveryRecord) {
	t.rows("deliveries", []any{source}, func(rows pgx.Rows) error {
		var scan deliveryScan
		err := rows.Scan(scan.into()...)
		*into = append(*into, scan.get())
		return err
	})
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

// ToEdit is as in store.Store.
func (s *Store) ToEdit(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (store.ToEdit, error) {
	var found store.ToEdit
	err := s.read(ctx, func(t *tx) {
		t.batchFacts(batch, &store.BatchSummary{}, new(int64))
		t.rows("to_edit", []any{batch, kind}, func(row pgx.Rows) error {
			var id task.ID
			var metadata []byte
			var expected *int64
			err := row.Scan((*[16]byte)(&id), &metadata, &expected)
			found.Add(id, metadata, expected, rules)
			return err
		})
	})
	if err != nil {
		return store.ToEdit{}, fmt.Errorf("read tasks to edit: %w", err)
	}
	return found, nil
}

// read runs statements that only read, all of one moment.
func (s *Store) read(ctx context.Context, queue func(t *tx)) error {
	return s.snapshot(ctx, func(_ context.Context, t *tx) error {
		queue(t)
		return nil
	})
}

// snapshot is read for statements of which some need the answers of others: fn may flush.
func (s *Store) snapshot(ctx context.Context, fn func(ctx context.Context, t *tx) error) error {
	ctx, cancel := s.pool.within(ctx)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return redact(err)
	}
	defer conn.Release()
	t := &tx{s: s, conn: conn, batch: &pgx.Batch{}}
	t.batch.Queue("begin isolation level repeatable read read only")
	err = fn(ctx, t)
	if err == nil {
		t.batch.Queue("commit")
		err = t.flush(ctx)
	}
	if err != nil {
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

// where collects conditions and their arguments, which may stand in more than one of it.
type where struct {
	conditions []string
	args       *[]any
	// state and facts are whether there are conditions on those.
	state, facts bool
}

// arg is the place of an argument.
func (w *where) arg(value any) string {
	*w.args = append(*w.args, value)
	return "$" + strconv.Itoa(len(*w.args))
}

// add takes a condition with one %s for the place of its argument.
func (w *where) add(condition string, arg any) {
	w.conditions = append(w.conditions, fmt.Sprintf(condition, w.arg(arg)))
}

// ofState and ofFacts are as add.
func (w *where) ofState(condition string, arg any) {
	w.state = true
	w.add(condition, arg)
}

func (w *where) ofFacts(condition string, arg any) {
	w.facts = true
	w.add(condition, arg)
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return "\nWHERE " + w.all()
}

func (w *where) all() string { return strings.Join(w.conditions, " AND ") }

// page adds the order and the part of the list that f wants.
func (w *where) page(order string, f *store.Filter) string {
	return "\nORDER BY " + order + " LIMIT " + w.arg(f.Limit) + " OFFSET " + w.arg(f.Offset)
}

// Where a list is walked from the newest on.
const (
	byFacts = "tasks_by_facts"
	byState = "tasks_by_state"
	byIDs   = "tasks_by_ids"
	inPlace = "tasks_in_place"

	batchesByAge   = "batches_by_age"
	batchesByScope = "batches_by_scope"
	batchesByKind  = "batches_by_kind"
	batchesInPlace = "batches_in_place"
)

// fewReady and fewPending are up to how many ready tasks and pending deliveries a list sorts.
const fewReady, fewPending = 10_000, 10_000

// walk is where a list looks.
type walk struct {
	from  string
	place string // the statement of inPlace and batchesInPlace
	args  []any  // the first ones of the statement
	// ofPrefix: the place has nothing but what is of the kinds that are wanted.
	ofPrefix bool
	// last is where it ends; zero: it goes on to the end.
	last task.ID
}

// Tasks is as in store.Store.
func (s *Store) Tasks(ctx context.Context, f store.Filter) (store.Page[store.Item], error) {
	walk, err := s.tasksFrom(ctx, &f)
	if err != nil {
		return store.Page[store.Item]{}, fmt.Errorf("list tasks: %w", redact(err))
	}
	items, walked, err := list(ctx, s, &f, walk, s.tasksEnd, s.tasksQuery, scanItem, nil)
	if err != nil {
		return store.Page[store.Item]{}, fmt.Errorf("list tasks: %w", err)
	}
	return store.NewPage(items, walked, &f), nil
}

// tasksFrom chooses where to look. No index has the status, which changes too often for that.
func (s *Store) tasksFrom(ctx context.Context, f *store.Filter) (walk, error) {
	switch {
	case f.IDs != nil:
		return walk{from: byIDs, args: []any{f.IDs}}, nil
	case f.Only(task.Claimed, task.Running):
		return walk{from: inPlace, place: s.queries.Get("place_running")}, nil
	case f.Batch != (task.ID{}):
		return walk{from: byFacts}, nil
	case f.Only(store.RareStatuses...):
		return walk{from: inPlace, place: s.inRareStatus(f)}, nil
	case f.Only(task.Pending, task.Claimed, task.Running):
		few, err := s.few(ctx, "few_ready")
		if err != nil || few {
			return walk{from: inPlace, place: s.queries.Get("place_live")}, err
		}
	}
	if f.KindPrefix != "" {
		kinds, merge, err := s.kinds(ctx, f.KindPrefix)
		if err != nil || merge {
			return s.ofKinds(kinds), err
		}
	}
	if f.Kind == "" && (len(f.Statuses) > 0 || f.Timeout != 0 || f.KindPrefix != "") {
		return walk{from: byState}, nil
	}
	return walk{from: byFacts}, nil
}

// inRareStatus is the place of what is in those of [store.RareStatuses] that f wants.
func (s *Store) inRareStatus(f *store.Filter) string {
	var parts []string
	for _, status := range f.Statuses {
		parts = append(parts, fmt.Sprintf(s.queries.Get("place_rare_status"), status))
	}
	return strings.Join(parts, " UNION ALL ")
}

// kinds is as [store.KindsOf].
func (s *Store) kinds(ctx context.Context, prefix string) (kinds []string, merge bool, err error) {
	var all []string
	err = s.lists.Do(ctx, func() error {
		return s.read(ctx, func(t *tx) {
			t.exec("open_list")
			t.rows("kinds", []any{store.FewKinds}, func(rows pgx.Rows) error {
				var kind string
				err := rows.Scan(&kind)
				all = append(all, kind)
				return err
			})
		})
	})
	kinds, merge = store.KindsOf(prefix, all)
	return kinds, merge, err
}

// ofKinds is the place of some kinds.
func (s *Store) ofKinds(kinds []string) walk {
	var parts []string
	var args []any
	for i, kind := range kinds {
		parts, args = append(parts, fmt.Sprintf(s.queries.Get("place_kind"), i+1)), append(args, kind)
	}
	return walk{from: inPlace, place: strings.Join(parts, " UNION ALL "), args: args, ofPrefix: true}
}

func numbers(statuses []task.Status) []int16 {
	n := make([]int16, len(statuses))
	for i, status := range statuses {
		n[i] = int16(status)
	}
	return n
}

// few asks the statement name whether there is little enough to sort.
func (s *Store) few(ctx context.Context, name string, args ...any) (few bool, err error) {
	err = s.pool.QueryRow(ctx, s.queries.Get(name), append([]any{fewReady}, args...)...).Scan(&few)
	return few, err
}

func (s *Store) tasksQuery(walk walk, f *store.Filter) (sql string, args []any) {
	args = slices.Clone(walk.args)
	id := walk.id()
	w := &where{args: &args, state: walk.from == byIDs} // whether there is such a task
	w.between(id, f)
	w.notBehind(id, walk)
	unknown := *f
	if walk.ofPrefix {
		unknown.KindPrefix = ""
	}
	w.tasks(walk.from, &unknown)
	if !f.CreatedAfter.IsZero() {
		w.ofFacts("t.created_at > %s", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		w.ofFacts("t.created_at < %s", f.CreatedBefore)
	}
	order := "%s DESC"
	if f.Sort == store.SortUpdated {
		w.state, order = true, "s.last_updated DESC, %s DESC"
	}
	picked := s.source(walk.from, walk)
	if w.state && walk.from != byState {
		picked += "\n" + fmt.Sprintf(s.queries.Get("tasks_with_state"), id)
	}
	if w.facts && walk.from != byFacts {
		picked += "\n" + fmt.Sprintf(s.queries.Get("tasks_with_facts"), id)
	}
	picked += w.sql() + w.page(fmt.Sprintf(order, id), f)
	return fmt.Sprintf(s.queries.Get("tasks"), picked) + "\nORDER BY " + fmt.Sprintf(order, "picked.id"), args
}

// id is what the statement of a walk calls the id of a task.
func (w walk) id() string {
	return map[string]string{byFacts: "t.id", byState: "s.id", byIDs: "p.task_id", inPlace: "p.task_id"}[w.from]
}

// source is the statement name, in the place of the walk if it has any.
func (s *Store) source(name string, walk walk) string {
	if walk.place == "" {
		return s.queries.Get(name)
	}
	return fmt.Sprintf(s.queries.Get(name), walk.place)
}

// tasksEnd asks for the end of a walk of f.Walk tasks: of those that follow in its order, of any kind or of one. An index
// alone has them.
func (s *Store) tasksEnd(walk walk, f *store.Filter) (sql string, args []any) {
	if walk.from != inPlace {
		walk.from = byFacts
	}
	id := walk.id()
	args = slices.Clone(walk.args)
	w := &where{args: &args}
	w.between(id, f)
	if walk.from == byFacts && f.Kind != "" {
		w.add("t.kind = %s", f.Kind)
	}
	if walk.from == byFacts && f.Batch != (task.ID{}) {
		w.add("t.batch_id = %s", f.Batch)
	}
	return s.source(walk.from, walk) + w.sql() + w.last(id, f), args
}

// last is the last one of a walk.
func (w *where) last(id string, f *store.Filter) string {
	return "\nORDER BY " + id + " DESC LIMIT 1 OFFSET " + w.arg(f.Walk-1)
}

// notBehind ends the walk.
func (w *where) notBehind(id string, walk walk) {
	if walk.last != (task.ID{}) {
		w.add(id+" >= %s", walk.last)
	}
}

// between adds the bounds of ids.
func (w *where) between(id string, f *store.Filter) {
	after, before := store.IDsBetween(f.CreatedAfter, f.CreatedBefore)
	if after != (task.ID{}) {
		w.add(id+" > %s", after)
	}
	if !f.CreatedBefore.IsZero() {
		w.add(id+" < %s", before)
	}
	switch {
	case f.Before == (task.ID{}):
	case f.Sort == store.SortUpdated:
		w.add("(s.last_updated, "+id+") < ("+w.arg(f.BeforeUpdate)+", %s)", f.Before)
	default:
		w.add(id+" < %s", f.Before)
	}
}

// tasks adds what f says of tasks, where it is found first.
func (w *where) tasks(from string, f *store.Filter) {
	kind, ofKind := "s.kind", w.ofState
	if from == byFacts {
		kind, ofKind = "t.kind", w.ofFacts
	}
	if len(f.Statuses) > 0 {
		w.ofState("s.status = ANY(%s::smallint[])", numbers(f.Statuses))
	}
	if f.Timeout != 0 {
		w.ofState("s.timeout = %s", int(f.Timeout.Seconds()))
	}
	if f.Kind != "" {
		ofKind(kind+" = %s", f.Kind)
	}
	if f.KindPrefix != "" {
		ofKind("starts_with("+kind+", %s)", f.KindPrefix)
	}
	if f.NamePart != "" {
		w.ofFacts("strpos(t.name, %s) > 0", f.NamePart)
	}
	if f.Batch != (task.ID{}) {
		w.ofFacts("t.batch_id = %s", f.Batch)
		w.here(f.Batch)
	}
	if f.Metadata != nil {
		w.ofFacts("t.metadata::jsonb @> %s::text::jsonb", string(f.Metadata))
	}
}

// here finds nothing of a batch that is gone, some of whose tasks may still be to be deleted.
func (w *where) here(batch task.ID) { w.add("EXISTS (SELECT FROM batch WHERE id = %s)", batch) }

// query makes a statement of a walk.
type query func(walk walk, f *store.Filter) (sql string, args []any)

// list runs the statements of a list: where its walk ends, if it has to, and those that it finds. more, unless it is nil,
// queues the reading of what else there is to them, as of the same moment.
func list[T any](
	ctx context.Context, s *Store, f *store.Filter, walk walk, end, found query, scan pgx.RowToFunc[T], more func(t *tx, rows []T),
) (rows []T, walked task.ID, err error) {
	read := func(ctx context.Context, t *tx) error {
		t.exec("open_list")
		if f.Walks() && walk.from != batchesInPlace {
			sql, args := end(walk, f)
			t.query("walk", sql, args, func(rows pgx.Rows) error { return rows.Scan((*[16]byte)(&walk.last)) })
			if err := t.flush(ctx); err != nil {
				return err
			}
		}
		sql, args := found(walk, f)
		t.batch.Queue(sql, args...).Query(func(found pgx.Rows) error {
			rows, err = pgx.CollectRows(found, scan)
			return err
		})
		if more == nil {
			return nil
		}
		if err := t.flush(ctx); err != nil {
			return err
		}
		more(t, rows)
		return nil
	}
	err = s.lists.Do(ctx, func() error { return s.snapshot(ctx, read) })
	return rows, walk.last, err
}

// Batches is as in store.Store.
func (s *Store) Batches(ctx context.Context, f store.Filter) (store.Page[store.BatchItem], error) {
	walk, err := s.batchesFrom(ctx, &f)
	if err != nil {
		return store.Page[store.BatchItem]{}, fmt.Errorf("list batches: %w", redact(err))
	}
	var groups []store.BatchGroup
	rows, walked, err := list(ctx, s, &f, walk, s.batchesEnd, s.batchesQuery, scanBatch, func(t *tx, rows []store.BatchRow) {
		if uncounted := store.Recall(rows, &s.ended); len(uncounted) > 0 {
			t.rows("count_batches", []any{uuids(uncounted)}, func(rows pgx.Rows) error {
				var g store.BatchGroup
				var status int16
				err := rows.Scan((*[16]byte)(&g.Batch), &g.Kind, &status, &g.Tasks, &g.UpdatedAt)
				g.Status, g.UpdatedAt = task.Status(status), g.UpdatedAt.UTC()
				groups = append(groups, g)
				return err
			})
		}
	})
	if err != nil {
		return store.Page[store.BatchItem]{}, fmt.Errorf("list batches: %w", err)
	}
	return store.NewPage(store.CountBatches(rows, groups, &s.ended), walked, &f), nil
}

func scanBatch(rows pgx.CollectableRow) (store.BatchRow, error) {
	var b store.BatchRow
	err := rows.Scan((*[16]byte)(&b.ID), &b.CreatedAt, &b.Late, &b.Requester, &b.Scope, &b.Metadata)
	b.CreatedAt = b.CreatedAt.UTC()
	return b, err
}

// batchesFrom chooses where to look.
func (s *Store) batchesFrom(ctx context.Context, f *store.Filter) (walk, error) {
	place, few := "", true
	var err error
	switch {
	case f.Only(task.Claimed, task.Running):
		place = s.queries.Get("place_running")
	case f.Only(task.Pending, task.Claimed, task.Running):
		place = s.queries.Get("place_live")
		few, err = s.few(ctx, "few_queued")
	case f.Only(store.RareStatuses...):
		place = s.inRareStatus(f)
		few, err = s.few(ctx, "few_rare_status", numbers(f.Statuses))
	}
	switch {
	case place != "" && few:
		return walk{from: batchesInPlace, place: place}, err
	case f.Scope != "":
		return walk{from: batchesByScope}, err
	case f.Kind != "":
		return walk{from: batchesByKind}, err
	}
	return walk{from: batchesByAge}, err
}

func (s *Store) batchesQuery(walk walk, f *store.Filter) (sql string, args []any) {
	id, page := "b.id", s.queries.Get(walk.from)
	w, tasks := &where{args: &args}, &where{args: &args}
	ofTasks := *f
	ofTasks.Metadata = nil
	rest := ofTasks // what is not known yet of the batches that are walked
	switch walk.from {
	case batchesInPlace:
		tasks.tasks(walk.from, &ofTasks)
		page, rest = fmt.Sprintf(page, walk.place, tasks.sql()), store.Filter{}
	case batchesByKind:
		id, rest.Kind = "k.batch_id", ""
		w.add("k.kind = %s", f.Kind)
	}
	if rest.OfTasks() {
		tasks.tasks(walk.from, &ofTasks)
		w.conditions = append(w.conditions, fmt.Sprintf(s.queries.Get("batch_has"), tasks.all()))
	}
	if f.Scope != "" {
		w.add("b.scope = %s AND b.scope <> ''", f.Scope) // the second for the index
	}
	if f.Metadata != nil {
		w.add("b.metadata::jsonb @> %s::text::jsonb", string(f.Metadata))
	}
	w.between(id, f)
	w.notBehind(id, walk)
	if !f.CreatedAfter.IsZero() {
		w.add("b.created_at > %s", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		w.add("b.created_at < %s", f.CreatedBefore)
	}
	page += w.sql() + w.page(id+" DESC", f)
	return fmt.Sprintf(s.queries.Get("batches"), page), args
}

// batchesEnd asks for the end of a walk of f.Walk tasks, or batches when nothing is asked of tasks. The last batch is looked
// at whole.
func (s *Store) batchesEnd(_ walk, f *store.Filter) (sql string, args []any) {
	id, from := "b.id", "walk_batches"
	if f.OfTasks() {
		id, from = "t.batch_id", "walk_tasks_of_batches"
	}
	w := &where{args: &args}
	w.between(id, f)
	return s.queries.Get(from) + w.sql() + w.last(id, f), args
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
	b := &store.BatchSummary{ID: id}
	err := s.snapshot(ctx, func(ctx context.Context, t *tx) error {
		version := store.BatchVersion{ID: id}
		t.batchFacts(id, b, &version.Late)
		t.deliveries(id, &b.Deliveries)
		if err := t.flush(ctx); err != nil {
			return err
		}
		var known bool
		if b.BatchSums, known = s.endedSums.Get(version); known {
			return nil
		}
		t.row("batch_sums", []any{id}, func(row pgx.Row) error {
			var counts []int
			err := row.Scan(&counts, &b.Tasks, &b.Success, &b.Failures, &b.Expected)
			b.Counts = map[task.Status]int{}
			for i, n := range counts {
				if n > 0 {
					b.Counts[task.Statuses()[i]] = n
				}
			}
			if err == nil {
				s.endedSums.Put(version, b.Counts, b.BatchSums, 1)
			}
			return err
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	return b, nil
}

// batchFacts queues the reading of what the client said of a batch, which must be there.
func (t *tx) batchFacts(id task.ID, b *store.BatchSummary, late *int64) {
	t.row("batch", []any{id}, func(row pgx.Row) error {
		var actions []byte
		if err := row.Scan(&b.Requester, &b.Scope, &b.Metadata, &b.CreatedAt, &actions, late); err != nil {
			return err
		}
		b.CreatedAt = b.CreatedAt.UTC()
		var err error
		b.OnComplete, err = task.ParseActions(actions)
		return err
	})
}

// ToStop is as in store.Store.
func (s *Store) ToStop(ctx context.Context, batch task.ID) (*store.ToStop, error) {
	u := &store.ToStop{}
	var live []store.Live
	var links []store.Link
	err := s.read(ctx, func(t *tx) {
		t.exec("open_list")
		t.batchFacts(batch, &store.BatchSummary{}, new(int64))
		t.row("batch_size", []any{batch}, func(row pgx.Row) error { return row.Scan(&u.Tasks) })
		t.rows("to_stop", []any{batch}, func(rows pgx.Rows) error {
			var l store.Live
			err := rows.Scan((*[16]byte)(&l.ID), &l.Waits, &l.Holds)
			live = append(live, l)
			return err
		})
		t.rows("to_stop_links", []any{batch}, func(rows pgx.Rows) error {
			var l store.Link
			err := rows.Scan((*[16]byte)(&l.Parent), (*[16]byte)(&l.Child))
			links = append(links, l)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read tasks to stop: %w", err)
	}
	u.IDs = store.StopOrder(live, links)
	return u, nil
}

// DAG is as in store.Store.
func (s *Store) DAG(ctx context.Context, batch task.ID) (*store.DAG, error) {
	dag := &store.DAG{}
	queue := func(t *tx) {
		t.batchFacts(batch, &store.BatchSummary{}, new(int64))
		picked := s.queries.Get(byFacts) + "\nWHERE t.batch_id = $1"
		sql := fmt.Sprintf(s.queries.Get("tasks"), picked) + "\nORDER BY t.id"
		t.batch.Queue(sql, batch).Query(func(rows pgx.Rows) error {
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
	}
	if err := s.lists.Graph(ctx, func(ctx context.Context) error { return s.read(ctx, queue) }); err != nil {
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
