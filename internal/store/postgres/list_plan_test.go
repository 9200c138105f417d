package postgres

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// manyTasks are 200 000 tasks in 2 000 batches, a second apart; 95 of 100 succeeded. The kinds kind-0 … kind-99 stand in
// every batch, rare in one. 1 000 are ready, 2 000 parked and 500 running.
const manyTasks = `
CREATE FUNCTION made_id(at bigint, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(to_hex(at), 12, '0') || '7' || lpad(to_hex(n), 3, '0') || '8000000000000000')::uuid $$;

INSERT INTO batch (id, requester, created_at, scope, metadata, alive_at)
SELECT made_id(1767225600000 + n * 1000, 0), '', to_timestamp(1767225600 + n),
       CASE n % 2 WHEN 0 THEN CASE n WHEN 1234 THEN 'rare' ELSE 'scope-' || n % 20 END ELSE '' END, json_build_object('run', n), to_timestamp(1767225600 + n)
FROM generate_series(0, 1999) n;

INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at)
SELECT made_id(1767225600000 + n / 100 * 1000, n % 100 + 1), made_id(1767225600000 + n / 100 * 1000, 0), n::text, 'task ' || n,
       CASE WHEN n = 70007 THEN 'rare' ELSE 'kind-' || n % 100 END, 'h', 0, false, json_build_object('tenant', n % 50, 'n', n),
       '[{"kind":"Webhook","params":{"url":"http://h.test/run","verb":"Post"}}]', to_timestamp(1767225600 + n / 100)
FROM generate_series(0, 199999) n;

INSERT INTO task_state (id, status, unmet, claimed_at, started_at, ended_at, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT t.id, s.status, (s.status = 1)::integer, t.created_at, t.created_at, CASE WHEN s.status IN (6, 7, 8) THEN t.created_at END,
       t.created_at, t.kind, CASE WHEN t.local_id = '70007' THEN 77 ELSE 60 END, false, false, false
FROM task t CROSS JOIN LATERAL (SELECT CASE WHEN n % 200 = 1 THEN 2 WHEN n % 100 = 2 THEN 2 WHEN n % 400 = 3 THEN 4
    WHEN n % 100 = 4 THEN 7 WHEN n = 70005 THEN 8 WHEN n = 70006 THEN 5 WHEN n = 70008 THEN 1 ELSE 6 END AS status
    FROM CAST(t.local_id AS integer) n) s;

INSERT INTO ready SELECT 'h', 0, s.id FROM task_state s JOIN task t ON t.id = s.id WHERE s.status = 2 AND t.kind = 'kind-1';
INSERT INTO parked SELECT s.id, 1, 1, 'h', 0 FROM task_state s JOIN task t ON t.id = s.id WHERE s.status = 2 AND t.kind = 'kind-2';
INSERT INTO running SELECT s.id, s.id, '{}' FROM task_state s WHERE s.status = 4;
INSERT INTO rare_status SELECT status, id FROM task_state WHERE status IN (5, 7, 8);
INSERT INTO batch_kind SELECT DISTINCT kind, batch_id FROM task`

// work is what a plan did, as EXPLAIN ANALYZE tells it.
type work struct {
	Type    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []work
}

// read is how many rows were read, and sorted how many were sorted.
func (w *work) sum() (read, sorted float64) {
	if strings.Contains(w.Type, "Scan") && w.Type != "Subquery Scan" {
		read = (w.Rows + w.Removed) * w.Loops
	}
	if w.Type == "Sort" || w.Type == "Incremental Sort" {
		for _, input := range w.Plans {
			sorted += input.Rows * input.Loops
		}
	}
	for i := range w.Plans {
		r, s := w.Plans[i].sum()
		read, sorted = read+r, sorted+s
	}
	return read, sorted
}

// facts is how many rows of task were read, other than from an index alone.
func (w *work) facts() (read float64) {
	if w.Type == "Index Scan" && w.Table == "task" {
		read = (w.Rows + w.Removed) * w.Loops
	}
	for i := range w.Plans {
		read += w.Plans[i].facts()
	}
	return read
}

func (w *work) seqScans() (tables []string) {
	if w.Type == "Seq Scan" && w.Table != "" {
		tables = append(tables, w.Table)
	}
	for i := range w.Plans {
		tables = append(tables, w.Plans[i].seqScans()...)
	}
	return tables
}

// Lists find what they show by an index and stop when their page is full. Those that look for something rare that no index
// knows walk back over one index, and sort nothing.
func TestListsAtSize(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	if _, err := s.pool.Exec(t.Context(), manyTasks); err != nil {
		t.Fatal(err)
	}
	for _, analyzed := range []bool{false, true} { // the planner must not need to know
		if analyzed {
			for _, table := range []string{"batch", "batch_kind", "task", "task_state", "ready", "parked", "running", "rare_status"} {
				if _, err := s.pool.Exec(t.Context(), "VACUUM ANALYZE "+table); err != nil {
					t.Fatal(err)
				}
			}
		}
		lists(t, s)
	}
}

// madeID is an id of manyTasks.
func madeID(t *testing.T, s *Store, second, n int) task.ID {
	t.Helper()
	var id uuid.UUID
	if err := s.pool.QueryRow(t.Context(), "SELECT made_id($1, $2)", int64(1767225600000+second*1000), n).Scan((*[16]byte)(&id)); err != nil {
		t.Fatal(err)
	}
	return id
}

// few is what a list may read besides its page: the tasks in a place, the rows of time that clocks leave open.
const few = 60_000

// lists checks every list of tasks and of batches.
func lists(t *testing.T, s *Store) {
	t.Helper()
	middle := time.Unix(1767225600+1000, 0)
	id := func(second, n int) task.ID { return madeID(t, s, second, n) }
	const all = 200_000
	for _, c := range []struct {
		name           string
		f              store.Filter
		tasks, batches float64 // rows that it may read
	}{
		{"everything", store.Filter{}, 200, 20_000},
		{"deep cursor", store.Filter{Before: id(3, 0)}, 200, 2_000},
		{"status Success", store.Filter{Statuses: []task.Status{task.Success}}, 200, 20_000},
		{"status Failure", store.Filter{Statuses: []task.Status{task.Failure}}, 6_000, 30_000},
		{"status Running", store.Filter{Statuses: []task.Status{task.Running}}, 300, 30_000},
		{"status Pending", store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}}, 4_000, 40_000},
		{"status Pending, deep cursor", store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}, Before: id(3, 0)}, 4_000, 40_000},
		{"kind and status Running", store.Filter{Kind: "kind-3", Statuses: []task.Status{task.Running}}, 2_000, 30_000},
		{"kind and status Pending", store.Filter{Kind: "kind-2", Statuses: []task.Status{task.Pending}}, 4_000, 40_000},
		{"kind and status Success", store.Filter{Kind: "kind-7", Statuses: []task.Status{task.Success}}, 300, 30_000},
		{"kind", store.Filter{Kind: "kind-7"}, 200, 20_000},
		{"kind, deep cursor", store.Filter{Kind: "kind-7", Before: id(1, 0)}, 200, 2_000},
		{"rare kind", store.Filter{Kind: "rare"}, 10, 500},
		{"unknown kind", store.Filter{Kind: "nothing"}, 0, 0},
		{"kind prefix", store.Filter{KindPrefix: "kind-1"}, 300, 30_000},
		{"name", store.Filter{NamePart: "7"}, 2_000, 30_000},
		{"batch", store.Filter{Batch: id(100, 0)}, 500, 30_000},
		{"batch and status", store.Filter{Batch: id(100, 0), Statuses: []task.Status{task.Success}}, 500, 30_000},
		{"metadata", store.Filter{Metadata: []byte(`{"tenant":7}`)}, 4_000, 40_000}, // which no batch has
		{"scope", store.Filter{Scope: "scope-2"}, 200, 20_000},
		{"scope and kind", store.Filter{Scope: "scope-2", Kind: "kind-7"}, 200, 20_000},
		{"scope, deep cursor", store.Filter{Scope: "scope-2", Before: id(3, 0)}, 200, 500},
		{"rare scope", store.Filter{Scope: "rare"}, 200, 500},
		{"unknown scope", store.Filter{Scope: "nothing"}, 200, 0},
		{"batch, by update", store.Filter{Batch: id(100, 0), Sort: store.SortUpdated, Before: id(100, 7), BeforeUpdate: middle}, 500, 30_000},
		{"running, by update", store.Filter{Statuses: []task.Status{task.Running}, Sort: store.SortUpdated}, 2_000, 30_000},
		{"named, by update", store.Filter{IDs: []task.ID{id(1, 7), id(3, 8)}, Sort: store.SortUpdated}, 10, 20_000},
		{"created after", store.Filter{CreatedAfter: middle}, 200, 20_000},
		{"created before", store.Filter{CreatedBefore: middle}, few, few},
		{"created in an hour long past", store.Filter{CreatedAfter: middle.AddDate(-1, 0, 0), CreatedBefore: middle.AddDate(-1, 0, 1)}, 0, 0},
		// These count over what is before them.
		{"deep page", store.Filter{Offset: 100_000}, 100_300, 0},
		{"deep page of a kind", store.Filter{Kind: "kind-7", Offset: 1_000}, 1_300, 0},
		{"deep page of a kind and status Success", store.Filter{Kind: "kind-7", Statuses: []task.Status{task.Success}, Offset: 1_000}, 2_300, 0},
		{"deep page of a batch", store.Filter{Batch: id(100, 0), Offset: 50}, 500, 0},
		{"deep page of status Success", store.Filter{Statuses: []task.Status{task.Success}, Offset: 100_000}, 106_000, 0},
		{"deep page of status Failure", store.Filter{Statuses: []task.Status{task.Failure}, Offset: 1_000}, 6_000, 0},
		{"deep page of status Running", store.Filter{Statuses: []task.Status{task.Running}, Offset: 100}, 600, 0},
		{"deep page of status Pending", store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}, Offset: 2_000}, 8_000, 0},
		{"deep page of a kind prefix", store.Filter{KindPrefix: "kind-1", Offset: 10_000}, 10_300, 0},
		{"deep page of a timeout", store.Filter{Timeout: time.Minute, Offset: 100_000}, 100_300, 0},
		{"status Canceled", store.Filter{Statuses: []task.Status{task.Canceled}}, 10, 10},
		{"status Paused", store.Filter{Statuses: []task.Status{task.Paused}}, 10, 10},
		{"rare statuses", store.Filter{Statuses: store.RareStatuses}, 6_000, 30_000},
		// These walk.
		{"status Waiting", store.Filter{Statuses: []task.Status{task.Waiting}}, all + 10, 3 * all},
		{"name that nothing has", store.Filter{NamePart: "nothing"}, all + 10, 3 * all},
		{"rare metadata", store.Filter{Metadata: []byte(`{"n":70007}`)}, all + 10, 3 * all},
		{"rare metadata of a batch", store.Filter{Metadata: []byte(`{"run":70}`)}, all + 10, 3_000},
		{"rare timeout", store.Filter{Timeout: 77 * time.Second}, all + 10, 3 * all},
		{"kind prefix that nothing has", store.Filter{KindPrefix: "nothing"}, 0, 3 * all},
	} {
		c.f.Limit = 51
		walk, err := s.tasksFrom(t.Context(), &c.f)
		if err != nil {
			t.Fatal(err)
		}
		sql, args := s.tasksQuery(walk, &c.f)
		plan := s.checkWork(t, "tasks by "+c.name, "open_list", c.tasks, sql, args)
		asked := c.f.NamePart != "" || c.f.Metadata != nil || !c.f.CreatedAfter.IsZero() || !c.f.CreatedBefore.IsZero()
		if read := plan.facts(); read > float64(c.f.Limit) && !asked {
			t.Errorf("tasks by %s: the facts of %.0f are read for a page of %d", c.name, read, c.f.Limit)
		}
		s.checkWalk(t, c.name, walk, c.f)
		if c.f.Sort != store.SortCreated || c.f.Offset > 0 {
			continue
		}
		if walk, err = s.batchesFrom(t.Context(), &c.f); err != nil {
			t.Fatal(err)
		}
		sql, args = s.batchesQuery(walk, &c.f)
		s.checkWork(t, "batches by "+c.name, "open_list", c.batches, sql, args)
	}
}

// checkWalk looks at what the statements of a list do that may not walk far.
func (s *Store) checkWalk(t *testing.T, name string, walk walk, f store.Filter) {
	t.Helper()
	f.Walk = 1_000
	if !f.Walks() {
		return
	}
	const most = 3*1_000 + 2_100 // the tasks with their states, and those in a place
	sql, args := s.tasksEnd(walk, &f)
	s.checkWork(t, "end of tasks by "+name, "open_list", most, sql, args)
	if err := s.pool.QueryRow(t.Context(), sql, args...).Scan((*[16]byte)(&walk.last)); errors.Is(err, pgx.ErrNoRows) {
		return // there are fewer
	} else if err != nil {
		t.Fatal(err)
	}
	sql, args = s.tasksQuery(walk, &f)
	s.checkWork(t, "a walk of tasks by "+name, "open_list", most, sql, args)

	walk.from, walk.place, walk.last = batchesByAge, "", task.ID{}
	sql, args = s.batchesEnd(walk, &f)
	s.checkWork(t, "end of batches by "+name, "open_list", most, sql, args)
	if err := s.pool.QueryRow(t.Context(), sql, args...).Scan((*[16]byte)(&walk.last)); err != nil {
		t.Fatal(err)
	}
	sql, args = s.batchesQuery(walk, &f)
	s.checkWork(t, "a walk of batches by "+name, "open_list", 3*most, sql, args) // and what is counted
}

// manyDeliveries is one for each of the tasks of manyTasks: of 100 hosts, 7 of 1 000 dead, and 1 000 pending of which 10 are
// for the host waits. One dead and one pending one are for rare.
const manyDeliveries = `
INSERT INTO delivery (id, source_id, trigger, place, host, state, next_at, created_at)
SELECT made_id(1767225600000 + n / 100 * 1000, n % 100 + 201), made_id(1767225600000 + n / 100 * 1000, n % 100 + 1), 2, 0,
       CASE WHEN n IN (70001, 70002) THEN 'rare' WHEN n % 20000 = 5 THEN 'waits' ELSE 'host-' || n % 100 END,
       CASE WHEN n = 70001 THEN 3 WHEN n = 70002 OR n % 200 = 5 THEN 1 WHEN n % 1000 BETWEEN 10 AND 16 THEN 3 ELSE 2 END,
       now(), now()
FROM generate_series(0, 199999) n`

// Lists of deliveries read their page of an index, and sort no more than what is pending or belongs to one batch. What no
// index knows, the done ones and those of a host, is walked for, and not far by who follows links.
func TestDeliveriesAtSize(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	if _, err := s.pool.Exec(t.Context(), manyTasks+";"+manyDeliveries); err != nil {
		t.Fatal(err)
	}
	id := func(second, n int) task.ID { return madeID(t, s, second, n) }
	const all = 200_000
	for _, analyzed := range []bool{false, true} { // the planner must not need to know
		if analyzed {
			if _, err := s.pool.Exec(t.Context(), "VACUUM ANALYZE"); err != nil {
				t.Fatal(err)
			}
		}
		done, dead, pending := store.DeliveryDone, store.DeliveryDead, store.DeliveryPending
		for _, c := range []struct {
			name string
			f    store.Filter
			most float64 // rows that it may read
		}{
			{"everything", store.Filter{}, 200}, {"deep cursor", store.Filter{Before: id(3, 0)}, 200},
			{"done", store.Filter{DeliveryStates: []store.DeliveryState{done}}, 200},
			{"dead", store.Filter{DeliveryStates: []store.DeliveryState{dead}}, 200},
			{"dead, deep cursor", store.Filter{DeliveryStates: []store.DeliveryState{dead}, Before: id(3, 0)}, 200},
			{"dead of a host", store.Filter{DeliveryStates: []store.DeliveryState{dead}, Host: "host-12"}, 200},
			{"dead of a rare host", store.Filter{DeliveryStates: []store.DeliveryState{dead}, Host: "rare"}, 10},
			{"dead of an unknown host", store.Filter{DeliveryStates: []store.DeliveryState{dead}, Host: "nothing"}, 0},
			{"pending", store.Filter{DeliveryStates: []store.DeliveryState{pending}}, 1_300},
			{"pending, deep cursor", store.Filter{DeliveryStates: []store.DeliveryState{pending}, Before: id(3, 0)}, 1_300},
			{"pending of a host", store.Filter{DeliveryStates: []store.DeliveryState{pending}, Host: "waits"}, 30},
			{"pending of a rare host", store.Filter{DeliveryStates: []store.DeliveryState{pending}, Host: "rare"}, 10},
			{"of a task", store.Filter{Task: id(100, 7)}, 10},
			{"dead of a task", store.Filter{Task: id(100, 12), DeliveryStates: []store.DeliveryState{dead}}, 10},
			{"of a batch", store.Filter{Batch: id(100, 0)}, 500},
			{"dead of a batch", store.Filter{Batch: id(100, 0), DeliveryStates: []store.DeliveryState{dead}}, 500},
			{"of a host", store.Filter{Host: "host-12"}, 6_000},
			{"done of a host", store.Filter{Host: "host-12", DeliveryStates: []store.DeliveryState{done}}, 6_000},
			// These walk.
			{"of a rare host", store.Filter{Host: "rare"}, all + 10},
			{"of an unknown host", store.Filter{Host: "nothing"}, all + 10},
		} {
			c.f.Limit = 51
			walk, err := s.deliveriesFrom(t.Context(), &c.f)
			if err != nil {
				t.Fatal(err)
			}
			sql, args := s.deliveriesQuery(walk, &c.f)
			s.checkWork(t, "deliveries by "+c.name, "open_list", c.most, sql, args)
			if c.f.Walk = 1_000; walk.from != deliveriesByAge || c.f.OnlyDead() || !c.f.Walks() {
				continue
			}
			sql, args = s.deliveriesEnd(walk, &c.f)
			s.checkWork(t, "end of deliveries by "+c.name, "open_list", 1_100, sql, args)
			if err := s.pool.QueryRow(t.Context(), sql, args...).Scan((*[16]byte)(&walk.last)); errors.Is(err, pgx.ErrNoRows) {
				continue // there are fewer
			} else if err != nil {
				t.Fatal(err)
			}
			sql, args = s.deliveriesQuery(walk, &c.f)
			s.checkWork(t, "a walk of deliveries by "+c.name, "open_list", 1_100, sql, args)
		}
		for _, host := range []string{"", "waits"} {
			sql, args := s.pending("few_pending", &store.Filter{Host: host}, []any{fewPending})
			s.checkWork(t, "whether few are pending", "open_list", 1_300, sql, args)
		}
	}
}

// manyGates are 200 000 gates of 100 kinds with two shapes each, but for one that is rare.
const manyGates = `
INSERT INTO shape (id, type, kind, status, fields, version) SELECT n, 0, CASE WHEN n = 77 THEN 'rare' ELSE 'kind-' || n / 2 END, 4, '[]', 1 FROM generate_series(0, 199) n;
INSERT INTO gate SELECT n, CASE WHEN n = 100000 THEN 77 WHEN n % 200 = 77 THEN 78 ELSE n % 200 END, '', 1, '{}', false
FROM generate_series(0, 199999) n`

// Limits of a kind are found by their shapes, however many gates the other kinds have.
func TestLimitsAtSize(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	if _, err := s.pool.Exec(t.Context(), manyGates); err != nil {
		t.Fatal(err)
	}
	for _, analyzed := range []bool{false, true} { // the planner must not need to know
		if analyzed {
			if _, err := s.pool.Exec(t.Context(), "VACUUM ANALYZE"); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			name string
			f    store.LimitFilter
			most float64
		}{
			{"first", store.LimitFilter{}, 300}, {"deep", store.LimitFilter{After: 150_000}, 300},
			{"of a kind", store.LimitFilter{Kind: "kind-7"}, 700}, {"of a kind, deep", store.LimitFilter{Kind: "kind-7", After: 150_000}, 700},
			{"of a rare kind", store.LimitFilter{Kind: "rare"}, 300}, {"of an unknown kind", store.LimitFilter{Kind: "nothing"}, 300},
			{"of a prefix", store.LimitFilter{KindPrefix: "kind-1"}, 2_000},
		} {
			c.f.Limit, c.f.After = 50, max(c.f.After, 0)
			sql, args := s.limitsQuery(&c.f)
			s.checkWork(t, "limits "+c.name, "pin_plans", c.most, sql, args)
		}
	}
}

// checkWork runs the statement of a list and looks at what it did.
func (s *Store) checkWork(t *testing.T, name, settings string, most float64, sql string, args []any) work {
	t.Helper()
	const mostSorted = 5_000 // what is in the places
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	do(t, conn, "begin")
	defer do(t, conn, "rollback")
	do(t, conn, s.queries.Get(settings))
	var raw []byte
	if err := conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+sql, args...).Scan(&raw); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, sql)
	}
	var plans []struct {
		Plan work
		Time float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal(raw, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %v: %s", name, err, raw)
	}
	read, sorted := plans[0].Plan.sum()
	t.Logf("%-50s %8.0f rows read, %6.0f sorted, %6.1f ms", name, read, sorted, plans[0].Time)
	if read > most || sorted > mostSorted {
		t.Errorf("%s: %.0f rows read, at most %.0f wanted; %.0f sorted\n%s\n%s", name, read, most, sorted, sql, raw)
	}
	for _, table := range plans[0].Plan.seqScans() {
		if table != "shape" { // there are few
			t.Errorf("%s walks the table %s", name, table)
		}
	}
	return plans[0].Plan
}
