package sqlite

import (
	"database/sql/driver"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// manyTasks are 200 000 tasks in 2 000 batches, a second apart; 95 of 100 succeeded. The kinds kind-0 … kind-99 stand in
// every batch, rare in one. 1 000 are ready, 2 000 parked and 500 running.
const manyTasks = `
CREATE TEMP TABLE made AS
WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 199999)
SELECT n, unhex(printf('%08x-%04x-7%03x-8000-000000000000', (1767225600000 + n / 100 * 1000) >> 16,
                 (1767225600000 + n / 100 * 1000) & 0xffff, n % 100 + 1), '-') AS id,
       unhex(printf('%08x-%04x-7000-8000-000000000000', (1767225600000 + n / 100 * 1000) >> 16,
              (1767225600000 + n / 100 * 1000) & 0xffff), '-') AS batch_id,
       iif(n = 70007, 'rare', 'kind-' || (n % 100)) AS kind, (1767225600 + n / 100) * 1000000 AS at,
       CASE WHEN n % 200 = 1 THEN 2 WHEN n % 100 = 2 THEN 2 WHEN n % 400 = 3 THEN 4 WHEN n % 100 = 4 THEN 7
            WHEN n = 70005 THEN 8 WHEN n = 70006 THEN 5 WHEN n = 70008 THEN 1 ELSE 6 END AS status
FROM n;

INSERT INTO batch (id, requester, created_at, scope, metadata, alive_at)
SELECT DISTINCT batch_id, '', at, iif(at / 1000000 % 2, '', 'scope-' || at / 1000000 % 20), json_object('run', at / 1000000), at FROM made;
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at)
SELECT id, batch_id, n, 'task ' || n, kind, 'h', 0, 0, json_object('tenant', n % 50, 'n', n), '[]', at FROM made;
INSERT INTO task_state (id, status, unmet, claimed_at, started_at, ended_at, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT id, status, status = 1, at, at, iif(status > 5, at, NULL), at, kind, iif(n = 70007, 77, 60), 0, 0, 0 FROM made;
INSERT INTO ready SELECT 'h', 0, id FROM made WHERE status = 2 AND kind = 'kind-1';
INSERT INTO parked SELECT id, 1, 1, 'h', 0 FROM made WHERE status = 2 AND kind = 'kind-2';
INSERT INTO running SELECT id, id, '[]', NULL FROM made WHERE status = 4;
INSERT INTO batch_kind SELECT DISTINCT kind, batch_id FROM made;
DROP TABLE made;`

// Lists find what they show by an index and stop when their page is full. None walks a table of tasks but backward by its
// key, and none sorts more than what is in the places.
func TestListsAtSize(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	c := <-s.writers
	err := c.script(t.Context(), "BEGIN;"+manyTasks+"COMMIT;")
	s.writers <- c
	if err != nil {
		t.Fatal(err)
	}
	middle := time.Unix(1767225600+1000, 0)
	id := func(text string) task.ID {
		id, err := task.ParseID(text)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	third := id("019b76da-b3b8-7000-8000-000000000000")
	for _, l := range []struct {
		name string
		f    store.Filter
	}{
		{"everything", store.Filter{}},
		{"deep cursor", store.Filter{Before: third}},
		{"status Success", store.Filter{Statuses: []task.Status{task.Success}}},
		{"status Failure", store.Filter{Statuses: []task.Status{task.Failure}}},
		{"status Canceled", store.Filter{Statuses: []task.Status{task.Canceled}}},
		{"status Waiting", store.Filter{Statuses: []task.Status{task.Waiting}}},
		{"status Paused, deep cursor", store.Filter{Statuses: []task.Status{task.Paused}, Before: third}},
		{"status Running", store.Filter{Statuses: []task.Status{task.Running}}},
		{"status Pending", store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}}},
		{"kind and status Running", store.Filter{Kind: "kind-3", Statuses: []task.Status{task.Running}}},
		{"kind and status Success", store.Filter{Kind: "kind-7", Statuses: []task.Status{task.Success}}},
		{"kind", store.Filter{Kind: "kind-7"}},
		{"kind, deep cursor", store.Filter{Kind: "kind-7", Before: third}},
		{"rare kind", store.Filter{Kind: "rare"}},
		{"unknown kind", store.Filter{Kind: "nothing"}},
		{"kind prefix", store.Filter{KindPrefix: "kind-1"}},
		{"name", store.Filter{NamePart: "7"}},
		{"batch", store.Filter{Batch: third}},
		{"metadata", store.Filter{Metadata: []byte(`{"tenant":7}`)}},
		{"scope", store.Filter{Scope: "scope-2"}},
		{"scope and kind, deep cursor", store.Filter{Scope: "scope-2", Kind: "kind-7", Before: third}},
		{"unknown scope", store.Filter{Scope: "nothing"}},
		{"batch, by update", store.Filter{Batch: third, Sort: store.SortUpdated, Before: third, BeforeUpdate: middle}},
		{"running, by update", store.Filter{Statuses: []task.Status{task.Running}, Sort: store.SortUpdated}},
		{"created after", store.Filter{CreatedAfter: middle}},
		{"created before", store.Filter{CreatedBefore: middle}},
		{"deep page", store.Filter{Offset: 100_000}},
		{"deep page of a kind", store.Filter{Kind: "kind-7", Offset: 1_000}},
		{"deep page of a kind and status Success", store.Filter{Kind: "kind-7", Statuses: []task.Status{task.Success}, Offset: 1_000}},
		{"deep page of a batch", store.Filter{Batch: third, Offset: 50}},
		{"deep page of status Success", store.Filter{Statuses: []task.Status{task.Success}, Offset: 100_000}},
		{"deep page of status Failure", store.Filter{Statuses: []task.Status{task.Failure}, Offset: 1_000}},
		{"deep page of status Running", store.Filter{Statuses: []task.Status{task.Running}, Offset: 100}},
		{"deep page of status Pending", store.Filter{Statuses: []task.Status{task.Pending, task.Claimed}, Offset: 2_000}},
		{"deep page of a kind prefix", store.Filter{KindPrefix: "kind-1", Offset: 1_000}},
		{"deep page of a timeout", store.Filter{Timeout: time.Minute, Offset: 100_000}},
		// These walk back over a key.
		{"name that nothing has", store.Filter{NamePart: "nothing"}},
		{"rare metadata", store.Filter{Metadata: []byte(`{"n":70007}`)}},
		{"rare timeout", store.Filter{Timeout: 77 * time.Second}},
	} {
		l.f.Limit, l.f.Walk = 51, 1_000
		err := s.read(t.Context(), func(tx *tx) error {
			walk := tx.from(&l.f)
			sql, args := s.tasksQuery(walk, &l.f)
			tx.checkPlan(t, "tasks by "+l.name, sql, args)
			if l.f.NamePart == "" && l.f.Metadata == nil && l.f.CreatedAfter.IsZero() && l.f.CreatedBefore.IsZero() {
				tx.checkCovered(t, "tasks by "+l.name, sql, args)
			}
			if l.f.Walks() {
				sql, args = s.tasksEnd(walk, &l.f)
				tx.checkPlan(t, "end of tasks by "+l.name, sql, args)
				tx.checkCovered(t, "end of tasks by "+l.name, sql, args)
				tx.end(&walk, sql, args)
				sql, args = s.tasksQuery(walk, &l.f)
				tx.checkPlan(t, "a walk of tasks by "+l.name, sql, args)
				sql, args = s.batchesEnd(&l.f)
				tx.checkCovered(t, "end of batches by "+l.name, sql, args)
			}
			if l.f.Sort != store.SortCreated {
				return tx.err
			}
			sql, args = s.batchesQuery(tx.batchesFrom(&l.f), &l.f)
			tx.checkPlan(t, "batches by "+l.name, sql, args)
			return tx.err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// checkCovered: until a page is picked, nothing but indexes is read of the facts of tasks.
func (t *tx) checkCovered(tb testing.TB, name, sql string, args []driver.Value) {
	tb.Helper()
	for _, step := range t.plan(sql, args) {
		if step == "SCAN picked" {
			return
		}
		if table, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(step, "SCAN "), "SEARCH "), " "); table == "t" &&
			!strings.Contains(step, "COVERING INDEX") {
			tb.Errorf("%s: %s", name, step)
		}
	}
}

// plan is how a statement is carried out.
func (t *tx) plan(sql string, args []driver.Value) (steps []string) {
	t.query("explain", "EXPLAIN QUERY PLAN "+sql, func(r *row) error {
		r.at = 3
		steps = append(steps, r.text())
		return nil
	}, args...)
	return steps
}

// checkPlan looks at how the statement of a list is carried out.
func (t *tx) checkPlan(tb testing.TB, name, sql string, args []driver.Value) {
	tb.Helper()
	steps := t.plan(sql, args)
	if picked := slices.Contains(steps, "SCAN picked"); picked || strings.HasPrefix(name, "tasks by ") {
		if last := len(steps) - 1; picked && steps[last] == "USE TEMP B-TREE FOR ORDER BY" {
			steps = steps[:last]
		} else {
			tb.Errorf("%s: is not found by its first step\n%s", name, strings.Join(steps, "\n"))
		}
	}
	ready := strings.HasSuffix(name, "by update") // ready is sorted where tasks are wanted that are in a place
	for _, step := range steps {
		table, scan := strings.CutPrefix(step, "SCAN ")
		table, _, _ = strings.Cut(table, " ")
		if scan && !slices.Contains([]string{"p", "picked", "r", "running", "parked", "ready", "json_each"}, table) {
			tb.Errorf("%s: walks: %s\n%s", name, step, strings.Join(steps, "\n"))
		}
		ready = ready || table == "ready"
		if strings.HasPrefix(step, "USE TEMP B-TREE") && strings.Contains(name, "tasks by") && !ready {
			tb.Errorf("%s: sorts: %s\n%s", name, step, strings.Join(steps, "\n"))
		}
	}
	if len(steps) == 0 && t.err == nil {
		tb.Errorf("%s: no plan", name)
	}
}

// Lists of deliveries walk an index that has their order, but for the few that are pending and those of one batch, which are
// sorted.
func TestDeliveryPlans(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	done, dead, pending := []store.DeliveryState{store.DeliveryDone}, []store.DeliveryState{store.DeliveryDead}, []store.DeliveryState{store.DeliveryPending}
	id := task.ID{1}
	const (
		sorted  = "USE TEMP B-TREE FOR ORDER BY"
		byAge   = "SEARCH d USING PRIMARY KEY (id<?)"
		byDead  = "SEARCH d USING INDEX delivery_dead (id<?)"
		ofHost  = "SEARCH d USING INDEX delivery_dead_host (host=? AND id<?)"
		bySteps = "SEARCH d USING INDEX delivery_source (source_id=?)"
	)
	for _, c := range []struct {
		f    store.Filter
		want []string
	}{
		{store.Filter{}, []string{byAge}}, {store.Filter{DeliveryStates: done}, []string{byAge}}, {store.Filter{Host: "a"}, []string{byAge}},
		{store.Filter{Before: id}, []string{byAge}},
		{store.Filter{DeliveryStates: dead}, []string{byDead}}, {store.Filter{DeliveryStates: dead, Host: "a"}, []string{ofHost}},
		{store.Filter{DeliveryStates: pending}, []string{"SCAN d USING INDEX delivery_due", sorted}},
		{store.Filter{DeliveryStates: pending, Host: "a"}, []string{"SEARCH d USING INDEX delivery_due (host=?)", sorted}},
		{store.Filter{Task: id}, []string{bySteps, sorted}},
		{store.Filter{Batch: id}, []string{"SEARCH task USING COVERING INDEX task_batch (batch_id=?)", bySteps, sorted}},
	} {
		c.f.Limit, c.f.Walk = 51, 1_000
		var steps, found []string
		err := s.read(t.Context(), func(t *tx) error {
			explain := func(sql string, args []driver.Value) {
				t.query("explain", "EXPLAIN QUERY PLAN "+sql, func(r *row) error {
					r.at = 3
					steps = append(steps, r.text())
					return nil
				}, args...)
			}
			walk := t.deliveriesFrom(&c.f)
			sql, args := s.deliveriesQuery(walk, &c.f)
			explain(sql, args)
			found = slices.Clone(steps)
			if walk.from == deliveriesByAge && c.f.Walks() {
				explain(s.deliveriesEnd(&c.f))
			}
			return t.err
		})
		if err != nil {
			t.Fatal(err)
		}
		found = slices.DeleteFunc(found, func(step string) bool {
			return !strings.Contains(step, " d ") && !strings.HasPrefix(step, "SEARCH task USING COVERING") && step != sorted
		})
		if !slices.Equal(found, c.want) {
			t.Errorf("%+v: %q, want %q", c.f, steps, c.want)
		}
	}
}

// Limits of a kind are found by their shapes, however many gates the other kinds have.
func TestLimitPlans(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	for _, c := range []struct {
		f    store.LimitFilter
		want []string
	}{
		{store.LimitFilter{}, []string{"SEARCH gate USING INTEGER PRIMARY KEY (rowid>?)"}},
		{store.LimitFilter{Kind: "a"}, []string{"SCAN s", "SEARCH g USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH gate USING COVERING INDEX gate_shape (shape_id=? AND id>?)"}},
		{store.LimitFilter{KindPrefix: "a"}, []string{"SCAN s", "SEARCH g USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH gate USING COVERING INDEX gate_shape (shape_id=? AND id>?)"}},
	} {
		var steps, found []string
		err := s.read(t.Context(), func(t *tx) error {
			sql, args := s.limitsQuery(&c.f)
			t.query("explain", "EXPLAIN QUERY PLAN "+sql, func(r *row) error {
				r.at = 3
				steps = append(steps, r.text())
				return nil
			}, args...)
			return t.err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			if step == "SCAN p" {
				break // the page is found
			}
			if strings.HasPrefix(step, "SCAN ") || strings.HasPrefix(step, "SEARCH ") {
				found = append(found, step)
			}
		}
		if !slices.Equal(found, c.want) {
			t.Errorf("%+v: %q, want %q", c.f, steps, c.want)
		}
	}
}
