package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"math"
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
		}, id[:])
		if t.err == nil && d == nil {
			return store.ErrNotFound
		}
		t.rows("parents", func(r *row) error {
			d.Task.Dependencies = append(d.Task.Dependencies, task.Dependency{Parent: r.id(), RequiresSuccess: r.bool()})
			d.Parents = append(d.Parents, task.Status(r.int()))
			return nil
		}, id[:])
		t.deliveries(id, &d.Deliveries)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	return d, nil
}

// deliveries reads what is known of those of a task, or of a batch.
func (t *tx) deliveries(source task.ID, into *[]store.DeliveryRecord) {
	t.rows("deliveries", func(r *row) error {
		*into = append(*into, r.delivery())
		return nil
	}, source[:])
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
		}, id[:])
		if t.err == nil && created.IsZero() {
			return store.ErrNotFound
		}
		var written []task.Step
		t.rows("history", func(r *row) error {
			step := task.Step{At: r.time()}
			step.Cause, step.To = task.Cause(r.text()), task.Status(r.int())
			written = append(written, step)
			return nil
		}, id[:])
		steps = task.History(created, parents, &state, written)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return steps, nil
}

// ToEdit is as in store.Store.
func (s *Store) ToEdit(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (store.ToEdit, error) {
	var found store.ToEdit
	err := s.read(ctx, func(t *tx) error {
		if b, _ := t.batch(batch); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		t.rows("to_edit", func(r *row) error {
			found.Add(r.id(), r.raw(), r.maybe(), rules)
			return nil
		}, batch[:], kind)
		return t.err
	})
	if err != nil {
		return store.ToEdit{}, fmt.Errorf("read tasks to edit: %w", err)
	}
	return found, nil
}

// where collects conditions and their arguments, which may stand in more than one of it.
type where struct {
	conditions []string
	args       *[]driver.Value
	// state and facts are whether there are conditions on those.
	state, facts bool
}

// arg is the place of an argument.
func (w *where) arg(value driver.Value) string {
	*w.args = append(*w.args, value)
	return "?" + strconv.Itoa(len(*w.args))
}

// add takes a condition with one %s for the place of its argument.
func (w *where) add(condition string, arg driver.Value) {
	w.conditions = append(w.conditions, fmt.Sprintf(condition, w.arg(arg)))
}

// ofState and ofFacts are as add.
func (w *where) ofState(condition string, arg driver.Value) {
	w.state = true
	w.add(condition, arg)
}

func (w *where) ofFacts(condition string, arg driver.Value) {
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

// page is the part of the list that f wants.
func (w *where) page(f *store.Filter) string {
	return "\nLIMIT " + w.arg(int64(f.Limit)) + " OFFSET " + w.arg(int64(f.Offset))
}

// Where a list is walked from the newest task on.
const (
	byFacts = "tasks_by_facts"
	byIDs   = "tasks_by_ids"
	byState = "tasks_by_state"
	inPlace = "tasks_in_place"

	batchesByAge     = "batches_by_age"
	batchesByScope   = "batches_by_scope"
	batchesByKind    = "batches_by_kind"
	batchesByPlace   = "batches_by_place"
	batchesByRest    = "batches_by_rest"
	batchesByRunning = "batches_by_running"
)

// walk is where a list looks.
type walk struct {
	from  string
	place string   // the statement of inPlace
	kinds []string // of which it is
	// exact: the place has nothing but what is of the statuses that are wanted.
	exact bool
	// last is where it ends; zero: it goes on to the end.
	last task.ID
}

const (
	// fewReady and fewPending are up to how many ready tasks and pending deliveries a list sorts.
	fewReady, fewPending = 10_000, 10_000
)

// Tasks is as in store.Store.
func (s *Store) Tasks(ctx context.Context, f store.Filter) (store.Page[store.Item], error) {
	var items []store.Item
	var walked task.ID
	err := s.list(ctx, func(t *tx) error {
		walk := t.from(&f)
		if f.Walks() {
			sql, args := s.tasksEnd(walk, &f)
			walked = t.end(&walk, sql, args)
		}
		sql, args := s.tasksQuery(walk, &f)
		t.query(walk.from, sql, appendItems(&items), args...)
		return t.err
	})
	if err != nil {
		return store.Page[store.Item]{}, fmt.Errorf("list tasks: %w", err)
	}
	return store.NewPage(items, walked, &f), nil
}

// end finds where walk ends.
func (t *tx) end(walk *walk, sql string, args []driver.Value) (last task.ID) {
	t.query("walk", sql, func(r *row) error {
		last = r.id()
		walk.last = last
		return nil
	}, args...)
	return last
}

// from chooses where to look. No index has every status, so a rare one is searched for where there is least else.
func (t *tx) from(f *store.Filter) walk {
	switch {
	case f.IDs != nil:
		return walk{from: byIDs}
	case f.Only(task.Claimed, task.Running):
		return walk{from: inPlace, place: t.s.queries.Get("place_running")}
	case f.Batch != (task.ID{}):
		return walk{from: byFacts}
	case f.Only(task.Waiting, task.Paused, task.Failure, task.Canceled):
		return walk{from: inPlace, place: t.s.queries.Get("place_rest"), exact: true}
	case f.Only(task.Pending, task.Claimed, task.Running) && t.few("few_ready"):
		return walk{from: inPlace, place: t.s.queries.Get("place_live"), exact: true}
	}
	if f.KindPrefix != "" {
		if kinds, merge := t.kinds(f.KindPrefix); merge {
			return t.s.ofKinds(kinds)
		}
	}
	if f.Kind == "" && (len(f.Statuses) > 0 || f.Timeout != 0 || f.KindPrefix != "") {
		return walk{from: byState}
	}
	return walk{from: byFacts}
}

// kinds is as [store.KindsOf].
func (t *tx) kinds(prefix string) (kinds []string, merge bool) {
	var all []string
	t.rows("kinds", func(r *row) error {
		all = append(all, r.text())
		return nil
	}, int64(store.FewKinds))
	return store.KindsOf(prefix, all)
}

// ofKinds is the place of some kinds.
func (s *Store) ofKinds(kinds []string) walk {
	var parts []string
	for i := range kinds {
		parts = append(parts, fmt.Sprintf(s.queries.Get("place_kind"), 4+i))
	}
	return walk{from: inPlace, place: strings.Join(parts, "\nUNION ALL ") + "\nORDER BY task_id DESC LIMIT -1", kinds: kinds}
}

// few asks the statement name whether there is little enough to sort.
func (t *tx) few(name string, args ...driver.Value) bool {
	few := false
	t.rows(name, func(r *row) error {
		few = r.bool()
		return nil
	}, append([]driver.Value{int64(fewReady)}, args...)...)
	return few
}

// tasksQuery sorts its page again: so the first step, the only one that can be interrupted, finds all of it.
func (s *Store) tasksQuery(walk walk, f *store.Filter) (sql string, args []driver.Value) {
	id := walk.id()
	w := &where{args: &args, state: walk.from == byIDs} // whether there is such a task
	w.begin(walk, f)
	unknown := *f
	if walk.exact {
		unknown.Statuses = nil
	}
	if len(walk.kinds) > 0 {
		unknown.KindPrefix = ""
	}
	w.tasks(walk.from, &unknown)
	first, last := store.SurelyBetween(f.CreatedAfter, f.CreatedBefore)
	same := "id = " + id
	if walk.from == byFacts {
		same = "rowid = t.rowid"
	}
	if !f.CreatedAfter.IsZero() {
		w.conditions = append(w.conditions, fmt.Sprintf(s.queries.Get("created_after"), id, same, w.arg(first[:]), w.arg(micros(f.CreatedAfter))))
	}
	if !f.CreatedBefore.IsZero() {
		w.conditions = append(w.conditions, fmt.Sprintf(s.queries.Get("created_before"), id, same, w.arg(last[:]), w.arg(micros(f.CreatedBefore))))
	}
	order, again := "\nORDER BY "+id+" DESC", "\nORDER BY +picked.id DESC"
	switch {
	case f.Sort == store.SortUpdated:
		w.state = true
		order, again = "\nORDER BY s.last_updated DESC, "+id+" DESC", "\nORDER BY s.last_updated DESC, picked.id DESC"
		if f.Before != (task.ID{}) {
			w.add("(s.last_updated, "+id+") < ("+w.arg(micros(f.BeforeUpdate))+", %s)", f.Before[:])
		}
	case walk.from == inPlace:
		order = "" // the place has one
	}
	picked := s.source(walk.from, walk)
	if w.state && walk.from != byState {
		picked += "\n" + fmt.Sprintf(s.queries.Get("tasks_with_state"), id)
	}
	if w.facts && walk.from != byFacts {
		picked += "\n" + fmt.Sprintf(s.queries.Get("tasks_with_facts"), id)
	}
	picked += w.sql() + order + w.page(f)
	return fmt.Sprintf(s.queries.Get("tasks"), picked) + again, args
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
func (s *Store) tasksEnd(walk walk, f *store.Filter) (sql string, args []driver.Value) {
	w := &where{args: &args}
	if walk.from == inPlace {
		w.begin(walk, f)
		return s.source(walk.from, walk) + w.sql() + w.last(f), args
	}
	w.between("t.id", f)
	if f.Kind != "" {
		w.add("t.kind = %s", f.Kind)
	}
	if f.Batch != (task.ID{}) {
		w.add("t.batch_id = %s", f.Batch[:])
	}
	return s.queries.Get(byFacts) + w.sql() + "\nORDER BY t.id DESC" + w.last(f), args
}

// last is the last one of a walk.
func (w *where) last(f *store.Filter) string { return "\nLIMIT 1 OFFSET " + w.arg(int64(f.Walk-1)) }

// begin adds where to begin and to end.
func (w *where) begin(walk walk, f *store.Filter) {
	if walk.from == inPlace {
		after, before := idBounds(f)
		last := cmp.Or(walk.last, after)
		*w.args = append(*w.args, before[:], last[:], array(f.Statuses))
		for _, kind := range walk.kinds {
			*w.args = append(*w.args, kind)
		}
		if after != (task.ID{}) {
			w.add("p.task_id > %s", after[:])
		}
		return
	}
	if walk.from == byIDs {
		*w.args = append(*w.args, array(f.IDs))
	}
	w.between(walk.id(), f)
	w.notBehind(walk.id(), walk)
}

// notBehind ends the walk.
func (w *where) notBehind(id string, walk walk) {
	if walk.last != (task.ID{}) {
		w.add(id+" >= %s", walk.last[:])
	}
}

// between adds the bounds of ids.
func (w *where) between(id string, f *store.Filter) {
	after, before := idBounds(f)
	w.add(id+" < %s", before[:])
	if after != (task.ID{}) {
		w.add(id+" > %s", after[:])
	}
}

// idBounds are the bounds of ids; after is zero for none.
func idBounds(f *store.Filter) (after, before task.ID) {
	after, before = store.IDsBetween(f.CreatedAfter, f.CreatedBefore)
	if f.Before != (task.ID{}) && f.Sort == store.SortCreated && bytes.Compare(f.Before[:], before[:]) < 0 {
		before = f.Before
	}
	return after, before
}

// here finds nothing of a batch that is gone, some of whose tasks may still be to be deleted.
func (w *where) here(batch task.ID) {
	w.add("EXISTS (SELECT 1 FROM batch WHERE id = %s)", batch[:])
}

// tasks adds what f says of tasks, where it is found first.
func (w *where) tasks(from string, f *store.Filter) {
	kind, ofKind := "s.kind", w.ofState
	if from == byFacts {
		kind, ofKind = "t.kind", w.ofFacts
	}
	if len(f.Statuses) > 0 {
		w.ofState("s.status IN (SELECT value FROM json_each(%s))", array(f.Statuses))
	}
	if f.Timeout != 0 {
		w.ofState("s.timeout = %s", int64(f.Timeout.Seconds()))
	}
	if f.Kind != "" {
		ofKind(kind+" = %s", f.Kind)
	}
	if f.KindPrefix != "" {
		ofKind("instr("+kind+", %s) = 1", f.KindPrefix)
	}
	if f.NamePart != "" {
		w.ofFacts("instr(t.name, %s) > 0", f.NamePart)
	}
	if f.Batch != (task.ID{}) {
		w.ofFacts("t.batch_id = %s", f.Batch[:])
		w.here(f.Batch)
	}
	if f.Metadata != nil {
		w.ofFacts("metadata_contains(t.metadata, %s)", string(f.Metadata))
	}
}

// Batches is as in store.Store.
func (s *Store) Batches(ctx context.Context, f store.Filter) (store.Page[store.BatchItem], error) {
	var items []store.BatchItem
	var walked task.ID
	err := s.list(ctx, func(t *tx) error {
		var rows []store.BatchRow
		walk := t.batchesFrom(&f)
		if f.Walks() && (walk.from == batchesByAge || walk.from == batchesByKind || walk.from == batchesByScope) {
			sql, args := s.batchesEnd(&f)
			walked = t.end(&walk, sql, args)
		}
		sql, args := s.batchesQuery(walk, &f)
		t.query(walk.from, sql, func(r *row) error {
			b := store.BatchRow{BatchItem: store.BatchItem{ID: r.id(), CreatedAt: r.time()}, Late: r.int64()}
			b.BatchLabels = r.labels()
			rows = append(rows, b)
			return nil
		}, args...)
		var groups []store.BatchGroup
		if uncounted := store.Recall(rows, &s.ended); len(uncounted) > 0 {
			t.rows("count_batches", func(r *row) error {
				groups = append(groups, store.BatchGroup{Batch: r.id(), Kind: r.text(), Status: task.Status(r.int()), Tasks: r.int(), UpdatedAt: r.time()})
				return nil
			}, array(uncounted))
		}
		if t.err == nil {
			items = store.CountBatches(rows, groups, &s.ended)
		}
		return t.err
	})
	if err != nil {
		return store.Page[store.BatchItem]{}, fmt.Errorf("list batches: %w", err)
	}
	return store.NewPage(items, walked, &f), nil
}

func (r *row) labels() store.BatchLabels {
	return store.BatchLabels{Requester: r.text(), Scope: r.text(), Metadata: r.raw()}
}

// batchesFrom chooses where to look.
func (t *tx) batchesFrom(f *store.Filter) walk {
	switch {
	case f.Only(task.Claimed, task.Running):
		return walk{from: batchesByRunning}
	case f.Only(task.Pending, task.Claimed, task.Running) && t.few("few_queued"):
		return walk{from: batchesByPlace}
	case f.Only(task.Waiting, task.Paused, task.Failure, task.Canceled) && t.few("few_rest", array(f.Statuses)):
		return walk{from: batchesByRest}
	case f.Scope != "":
		return walk{from: batchesByScope}
	case f.Kind != "":
		return walk{from: batchesByKind}
	}
	return walk{from: batchesByAge}
}

func (s *Store) batchesQuery(walk walk, f *store.Filter) (sql string, args []driver.Value) {
	id, page := "b.id", s.queries.Get(walk.from)
	w, tasks := &where{args: &args}, &where{args: &args}
	ofTasks := *f
	ofTasks.Metadata = nil
	rest := ofTasks // what is not known yet of the batches that are walked
	switch walk.from {
	case batchesByRest:
		tasks.conditions = []string{"(s.status = 1 OR s.status = 5 OR s.status = 7 OR s.status = 8)"} // what the index is for
		fallthrough
	case batchesByPlace, batchesByRunning:
		tasks.tasks(byState, &ofTasks)
		page, rest = fmt.Sprintf(page, tasks.sql()), store.Filter{}
	case batchesByKind:
		id, rest.Kind = "k.batch_id", ""
		w.add("k.kind = %s", f.Kind)
	}
	if rest.OfTasks() {
		tasks.tasks(byState, &ofTasks)
		w.conditions = append(w.conditions, fmt.Sprintf(s.queries.Get("batch_has"), tasks.all()))
	}
	if f.Scope != "" {
		w.add("b.scope = %s AND b.scope <> ''", f.Scope) // the second for the index
	}
	if f.Metadata != nil {
		w.add("metadata_contains(b.metadata, %s)", string(f.Metadata))
	}
	w.between(id, f)
	w.notBehind(id, walk)
	if !f.CreatedAfter.IsZero() {
		w.add("b.created_at > %s", micros(f.CreatedAfter))
	}
	if !f.CreatedBefore.IsZero() {
		w.add("b.created_at < %s", micros(f.CreatedBefore))
	}
	page += w.sql() + "\nORDER BY " + id + " DESC" + w.page(f)
	return fmt.Sprintf(s.queries.Get("batches"), page), args
}

// batchesEnd asks for the end of a walk of f.Walk tasks, or batches when nothing is asked of tasks. The last batch is looked
// at whole.
func (s *Store) batchesEnd(f *store.Filter) (sql string, args []driver.Value) {
	id, from := "b.id", "walk_batches"
	if f.OfTasks() {
		id, from = "t.batch_id", "walk_tasks_of_batches"
	}
	w := &where{args: &args}
	w.between(id, f)
	return s.queries.Get(from) + w.sql() + "\nORDER BY " + id + " DESC" + w.last(f), args
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
		var late int64
		if b, late = t.batch(id); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		version, known := store.BatchVersion{ID: id, Late: late}, false
		if b.BatchSums, known = s.endedSums.Get(version); !known {
			b.BatchSums = t.sums(id)
			if t.err == nil {
				s.endedSums.Put(version, b.Counts, b.BatchSums, 1)
			}
		}
		t.deliveries(id, &b.Deliveries)
		return t.err
	})
	if err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	return b, nil
}

// batch reads the facts of a batch, nil if there is none.
func (t *tx) batch(id task.ID) (b *store.BatchSummary, late int64) {
	t.rows("batch", func(r *row) error {
		b = &store.BatchSummary{ID: id, BatchLabels: r.labels(), CreatedAt: r.time()}
		var err error
		b.OnComplete, err = task.ParseActions(r.raw())
		late = r.int64()
		return err
	}, id[:])
	return b, late
}

func (t *tx) sums(batch task.ID) store.BatchSums {
	b := store.BatchSums{Counts: map[task.Status]int{}}
	t.rows("batch_sums", func(r *row) error {
		for _, status := range task.Statuses() {
			if n := r.int(); n > 0 {
				b.Counts[status] = n
			}
		}
		b.Tasks = r.int()
		said := r.int()
		b.Success, b.Failures = r.sum(), r.sum()
		if expected := r.sum(); said == b.Tasks {
			b.Expected = &expected
		}
		return nil
	}, batch[:])
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

// ToStop is as in store.Store.
func (s *Store) ToStop(ctx context.Context, batch task.ID) (*store.ToStop, error) {
	u := &store.ToStop{}
	var live []store.Live
	var links []store.Link
	err := s.read(ctx, func(t *tx) error {
		if b, _ := t.batch(batch); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		t.rows("batch_size", func(r *row) error {
			u.Tasks = r.int()
			return nil
		}, batch[:])
		t.rows("to_stop", func(r *row) error {
			live = append(live, store.Live{ID: r.id(), Waits: r.bool(), Holds: r.bool()})
			return nil
		}, batch[:])
		t.rows("to_stop_links", func(r *row) error {
			links = append(links, store.Link{Parent: r.id(), Child: r.id()})
			return nil
		}, batch[:])
		return t.err
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
	read := func(t *tx) error {
		if b, _ := t.batch(batch); t.err == nil && b == nil {
			return store.ErrNotFound
		}
		picked := t.s.queries.Get(byFacts) + "\nWHERE t.batch_id = ? ORDER BY t.id"
		sql := fmt.Sprintf(t.s.queries.Get("tasks"), picked) + "\nORDER BY picked.id"
		t.query("tasks", sql, appendItems(&dag.Items), batch[:])
		t.rows("dag_links", func(r *row) error {
			dag.Links = append(dag.Links, store.Link{Parent: r.id(), Child: r.id(), RequiresSuccess: r.bool()})
			return nil
		}, batch[:])
		return t.err
	}
	if err := s.lists.Graph(ctx, func(ctx context.Context) error { return s.read(ctx, read) }); err != nil {
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
