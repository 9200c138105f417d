package postgres

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// node is a node of a plan, as EXPLAIN tells it.
type node struct {
	Type      string `json:"Node Type"`
	Table     string `json:"Relation Name"`
	Condition string `json:"Index Cond"`
	Plans     []node
}

// Tables that fill within seconds look empty to the planner: their last VACUUM found nothing in them. Statements must find
// their rows by an index all the same, and never by walking a table.
func TestPlansDoNotTrustStatistics(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	conn := lend(t, s)
	tables := planTables()
	do(t, conn, "INSERT INTO shape (id, type, kind, status, fields) VALUES (1, 0, 'k', 4, '[]')")
	lookEmpty(t, conn.Conn())
	for _, table := range tables {
		var pages, rows int
		if err := conn.QueryRow(t.Context(), "SELECT relpages, reltuples::int FROM pg_class WHERE oid = $1::text::regclass", table).
			Scan(&pages, &rows); err != nil || pages == 0 || rows != 0 {
			t.Fatalf("table %s does not look as it should for this test: %d pages, %d rows, %v", table, pages, rows, err)
		}
	}
	checkPlans(t, s, conn, tables)

	// Lists run where nothing pins plans. In their order one could be walked until all are found that are named.
	sql, _ := s.tasksQuery(walk{from: byIDs, args: []any{[]task.ID{}}}, &store.Filter{IDs: []task.ID{}, Limit: 50})
	named := explain(t, conn.Conn(), "tasks_by_ids", sql)
	named.walked("", func(n node) {
		if slices.Contains(tables, n.Table) {
			t.Errorf("tasks_by_ids walks the table %s: %s without a condition", n.Table, n.Type)
		}
	})
}

// planTables are those that may have many rows.
func planTables() []string {
	return []string{"task", "task_state", "link", "ready", "parked", "running", "gate", "gate_delta", "dep_event", "delivery", "delivery_attempt",
		"rare_status", "idempotency_key", "tally", "tally_event", "batch", "batch_progress", "batch_delta", "dead_end",
		"batch_kind", "history", "expired"}
}

// checkPlans looks at the plans of all statements of the transactions that pin them.
func checkPlans(t *testing.T, s *Store, conn *pgxpool.Conn, tables []string) {
	t.Helper()
	walks := map[string]string{ // statements that walk a table, and why they may
		"holders":     "running", // only for a new shape
		"lost_claims": "running", // only when a process has died

		"gate_holders": "running", // no further than to the last of them

		"pending_deltas":  "gate_delta",  // there are few between two ticks
		"find_duplicates": "tally_event", // the same
	}
	elsewhere := []string{ // run outside of the transactions that pin plans
		"task", "parents", "deliveries", "tasks_by_ids", "batch", "batch_counts", "batch_sums",
		"dag_links", "drift", "life", "history", "to_edit",
		"limits", "limits_by_id", "limits_by_kind",
		"tasks_with_state", "tasks_with_facts", "open_list", "few_ready", "few_queued", "tasks", "tasks_by_facts", "tasks_by_state", "tasks_in_place",
		"kinds", "place_kind", "place_running", "place_live", "place_rare_status", "few_rare_status", "walk_batches", "walk_tasks_of_batches",
		"batches", "batches_by_age", "batches_by_kind", "batches_by_scope", "batches_in_place", "batch_has",
		"batch_size", "to_stop", "to_stop_links",
		"delivery", "attempts", "delivery_items", "deliveries_by_age", "deliveries_pending", "deliveries_of_task", "deliveries_of_batch",
		"walk_deliveries", "few_pending",
	}
	do(t, conn, "begin")
	do(t, conn, s.queries.Get("open"), uuid.Must(uuid.NewV7()))
	for _, name := range store.LoadQueries(queryFiles).Unused() { // that is all of them
		if slices.Contains(elsewhere, name) {
			continue
		}
		root := explain(t, conn.Conn(), name, s.queries.Get(name))
		root.walked("", func(n node) {
			if slices.Contains(tables, n.Table) && walks[name] != n.Table {
				t.Errorf("%s walks the table %s: %s without a condition", name, n.Table, n.Type)
			}
		})
		for _, table := range root.sequential() {
			if slices.Contains(tables, table) && walks[name] != table {
				t.Errorf("%s reads the table %s page by page", name, table)
			}
		}
	}
	do(t, conn, "rollback")
}

// lookEmpty leaves tables with pages, of which the statistics say that they have no rows.
func lookEmpty(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for table, columns := range map[string]string{
		"task": "(id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at) " +
			"SELECT gen_random_uuid(), gen_random_uuid(), '', '', '', '', 0, false, '{}', '[]', now()",
		"task_state": "(id, status, unmet, last_updated, kind, timeout, has_children, end_actions, " +
			"tells_batch) SELECT gen_random_uuid(), 2, 0, now(), '', 1, false, false, false",
		"batch":            "(id, requester, created_at, scope, metadata, alive_at) SELECT gen_random_uuid(), '', now(), '', '{}', now()",
		"batch_kind":       "SELECT 'k', gen_random_uuid()",
		"expired":          "SELECT gen_random_uuid()",
		"history":          "(task_id, at, cause, status) SELECT gen_random_uuid(), now(), '', 1",
		"batch_progress":   "SELECT gen_random_uuid(), 1",
		"batch_delta":      "(batch_id, success, failure, canceled, ended_at) SELECT gen_random_uuid(), 1, 0, 0, now()",
		"rare_status":      "SELECT 7, gen_random_uuid()",
		"link":             "SELECT gen_random_uuid(), gen_random_uuid(), false, false",
		"ready":            "SELECT 'h', 0, gen_random_uuid()",
		"parked":           "SELECT gen_random_uuid(), 1, 1, 'h', 0",
		"running":          "SELECT gen_random_uuid(), gen_random_uuid(), '{}', now()",
		"gate":             "SELECT n, 1, '', 0, '{}', false",
		"gate_delta":       "(gate_id, delta) SELECT n, 1",
		"tally":            "SELECT gen_random_uuid(), n, 1",
		"tally_event":      "(task_id) SELECT gen_random_uuid()",
		"dep_event":        "(parent_id, succeeded) SELECT gen_random_uuid(), true",
		"dead_end":         "(task_id) SELECT gen_random_uuid()",
		"idempotency_key":  "SELECT n::text, '', gen_random_uuid(), now()",
		"delivery":         "(id, source_id, trigger, place, host, next_at, created_at) SELECT gen_random_uuid(), gen_random_uuid(), 1, 0, 'h', now(), now()",
		"delivery_attempt": "(delivery_id, at, took, status, error, answer) SELECT gen_random_uuid(), now(), '1s', 200, '', ''",
	} {
		for _, sql := range []string{
			"ALTER TABLE " + table + " SET (autovacuum_enabled = off)", // it would give the pages back
			"INSERT INTO " + table + " " + columns + " FROM generate_series(1, 1000) n",
			"DELETE FROM " + table,
			"VACUUM (TRUNCATE off) " + table,
		} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
}

// explain gives the plan that every connection keeps for a statement.
func explain(t *testing.T, conn *pgx.Conn, name, sql string) node {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "PREPARE "+name+" AS "+sql); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name).
		Scan(&n); err != nil {
		t.Fatal(err)
	}
	arguments := ""
	if n > 0 {
		arguments = "(NULL" + strings.Repeat(", NULL", n-1) + ")"
	}
	var raw []byte
	if err := conn.QueryRow(t.Context(), fmt.Sprintf("EXPLAIN (FORMAT JSON) EXECUTE %s%s", name, arguments)).Scan(&raw); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal(raw, &plans); err != nil || len(plans) != 1 {
		t.Fatalf("%s: %v: %s", name, err, raw)
	}
	return plans[0].Plan
}

// walked calls each for every scan below n that has no condition, but for those in order of which somebody takes the
// first few.
func (n *node) walked(above string, each func(node)) {
	scan := n.Type == "Seq Scan" || n.Type == "Index Scan" || n.Type == "Index Only Scan"
	if scan && n.Condition == "" && above != "Limit" {
		each(*n)
	}
	if n.Type != "Result" && n.Type != "LockRows" { // these take no more than is asked of them
		above = n.Type
	}
	for i := range n.Plans {
		n.Plans[i].walked(above, each)
	}
}

// sequential are the tables that are read page by page, in a Limit or not.
func (n *node) sequential() (tables []string) {
	if n.Type == "Seq Scan" {
		tables = append(tables, n.Table)
	}
	for i := range n.Plans {
		tables = append(tables, n.Plans[i].sequential()...)
	}
	return tables
}
