package postgres

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// tableState is how often Maintain has vacuumed a table, and the options it was created with.
type tableState struct {
	vacuums int
	options []string
}

func tableStates(t *testing.T, s *Store) map[string]tableState {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `
		SELECT c.relname::text, coalesce(c.reloptions, '{}'), pg_stat_get_vacuum_count(c.oid)::integer
		FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'`)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]tableState{}
	var name string
	var state tableState
	if _, err := pgx.ForEachRow(rows, []any{&name, &state.options, &state.vacuums}, func() error {
		states[name], state = state, tableState{}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return states
}

// Maintain vacuums once many rows are deleted, and not again before as many more are. It does so with every table of which
// rows are deleted, but for those to which autovacuum comes as soon as a twentieth is dead.
func TestMaintainVacuums(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	const soon = "autovacuum_vacuum_scale_factor=0.05"
	few := []string{"process", "shape", "batch_progress"} // or looked up by their keys alone
	var deleted []string
	for _, name := range store.LoadQueries(queryFiles).Unused() { // that is all of them
		for _, from := range regexp.MustCompile(`DELETE FROM (\w+)`).FindAllStringSubmatch(s.queries.Get(name), -1) {
			deleted = append(deleted, from[1])
		}
	}
	if !slices.Contains(deleted, "ready") || !slices.Contains(deleted, "task") {
		t.Fatalf("rows are deleted of %v", deleted)
	}
	for _, table := range deleted { // VACUUM would pass over a table that autovacuum is busy with
		if _, err := s.pool.Exec(t.Context(), "ALTER TABLE "+table+" SET (autovacuum_enabled = off)"); err != nil {
			t.Fatal(err)
		}
	}
	maintain := func(what string, want int) {
		t.Helper()
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		states := tableStates(t, s)
		for _, table := range deleted {
			state := states[table]
			if own := slices.Contains(state.options, soon) || slices.Contains(few, table); own && state.vacuums > 0 || !own && state.vacuums != want {
				t.Errorf("%s: table %s was vacuumed %d times, %v", what, table, state.vacuums, state.options)
			}
		}
	}
	const n = 100
	live := func() { // deletes n rows of ready and n of running
		t.Helper()
		var ends []task.Outcome
		for _, k := range createTasks(t, s, n) {
			ends = append(ends, task.Outcome{ID: k.ID, Kind: task.Update, Status: task.Success})
		}
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != n {
			t.Fatalf("%d claims, %v", len(pumped.Claims), err)
		}
		if _, err := s.Settle(t.Context(), ends); err != nil {
			t.Fatal(err)
		}
	}
	live()
	maintain("little is deleted", 0)
	s.deletions.add(vacuumAfter - 4*n)
	maintain("almost enough is deleted", 0)
	live()
	maintain("enough is deleted", 1)
	live()
	maintain("little more is deleted", 1)
}

// Rows that change often stay in their page, which is half empty, and so cost no entries of indexes.
func TestUpdatesStayInThePage(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	const n = 300
	p.Room = task.Room{Total: 2 * n, PerHost: 2 * n}
	creates, ends := make([]store.Create, n), make([]task.Outcome, n)
	for i := range n { // each batch has its gate
		rule := task.Rule{Matcher: task.Matcher{Kind: "work", Status: task.Running, Fields: []string{"v"}}, Max: 2}
		b := batchOfTasks(2, rule)
		for _, k := range b.Tasks {
			k.Metadata = fmt.Appendf(nil, `{"v":%d}`, i)
		}
		creates[i].Batch, ends[i] = b, task.Outcome{ID: b.Tasks[0].ID, Kind: task.Update, Status: task.Success}
	}
	if _, err := s.Create(t.Context(), creates); err != nil {
		t.Fatal(err)
	}
	pump := func(want int) {
		t.Helper()
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != want {
			t.Fatalf("%d claims, %v", len(pumped.Claims), err)
		}
	}
	pump(2 * n)
	inPage(t, s, "task_state", 2*n)
	if _, err := s.Settle(t.Context(), ends); err != nil {
		t.Fatal(err)
	}
	pump(0)
	inPage(t, s, "gate", n)
	inPage(t, s, "batch_progress", n)
}

// inPage checks that nearly all updates of a table, at least so many, stayed in their page: a row may have grown.
func inPage(t *testing.T, s *Store, table string, want int) {
	t.Helper()
	flushStatistics(t, s)
	var updates, hot int
	if err := s.engine.QueryRow(t.Context(), "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = $1::text::regclass", table).
		Scan(&updates, &hot); err != nil {
		t.Fatal(err)
	}
	if updates < want || hot < updates*3/4 {
		t.Errorf("%s: %d of %d updates stayed in their page; there were to be %d", table, hot, updates, want)
	}
}
