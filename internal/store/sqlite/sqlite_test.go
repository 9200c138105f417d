package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

func TestOpenIsExclusive(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	s := open(t, path, newClock())
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		if _, err := Open(t.Context(), Options{Path: name}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("second Open of %s: %v", name, err)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := s.Health(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Health after Close: %v", err)
	}
	if err := s.Heartbeat(t.Context(), newID(), time.Hour); !errors.Is(err, errClosed) {
		t.Errorf("Heartbeat after Close: %v", err)
	}
	open(t, path, newClock())
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                                  "no path",
		filepath.Join(dir, "missing", "db"): "no such file or directory",
		dir:                                 "cannot be opened",
		text:                                "not a database",
	} {
		s, err := Open(t.Context(), Options{Path: path})
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want %q", path, err, want)
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), newClock()
	path := filepath.Join(t.TempDir(), "x.db")
	h := &harness{open(t, path, c), t, newID()}
	if err := h.Heartbeat(ctx, h.owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	b := newBatch(3)
	b.Tasks[0].OnSuccess = []task.Action{action("http://two.test/")}
	b.Tasks[1].Rules = []task.Rule{{Matcher: task.Matcher{Kind: "ingest", Status: task.Running}, Max: 2}}
	b.Tasks[2].Rules = b.Tasks[1].Rules
	h.create(b)
	h.pump(b.Tasks[0].ID, b.Tasks[1].ID)
	h.settle(ended(b.Tasks[0].ID, task.Success))
	params := store.ClaimDeliveriesParams{Room: room, Lease: time.Hour}
	if claimed, err := h.ClaimDeliveries(ctx, params); err != nil || len(claimed.Deliveries) != 1 {
		t.Fatalf("%+v %v", claimed, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}

	h = &harness{open(t, path, c), t, newID()}
	h.status(b.Tasks[0].ID, task.Success)
	if err := h.Heartbeat(ctx, h.owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	claims, err := h.TakeOver(ctx, h.owner)
	if err != nil || len(claims) != 1 || claims[0].ID != b.Tasks[1].ID || claims[0].Attempt != 2 {
		t.Errorf("TakeOver: %+v %v", claims, err)
	}
	if claimed, err := h.ClaimDeliveries(ctx, params); err != nil || len(claimed.Deliveries) != 1 {
		t.Errorf("ClaimDeliveries: %+v %v", claimed, err)
	}
	h.pump(b.Tasks[2].ID) // the slot that was given back before is used, and the shape is known
	if err := h.Migrate(ctx); err != nil {
		t.Errorf("Migrate again: %v", err)
	}
	if claims, err := h.TakeOver(ctx, newID()); err != nil || len(claims) > 0 { // nobody died
		t.Errorf("TakeOver after Migrate: %+v %v", claims, err)
	}
}

func TestMigrateRefusesStrangers(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{
		"UPDATE migration SET checksum = 'other'":             "is not the one that made this database",
		"INSERT INTO migration VALUES (9999, 'later', '', 0)": "use a newer one",
	} {
		path := filepath.Join(t.TempDir(), "x.db")
		s := open(t, path, newClock())
		err := s.write(t.Context(), func(t *tx) error {
			t.query("change", change, nil)
			return t.err
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if s, err = Open(t.Context(), Options{Path: path}); err != nil {
			t.Fatal(err)
		}
		if err := s.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
		_ = s.Close()
	}
}

// TestNothingIsLeftOfAnError: neither of what failed nor of what panicked, and the next call works.
func TestNothingIsLeftOfAnError(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	h := &harness{open(t, filepath.Join(t.TempDir(), "x.db"), newClock()), t, newID()}
	b := newBatch(2)
	b.Tasks[1].Timeout, b.Tasks[1].Dependencies = time.Minute, []task.Dependency{{Parent: b.Tasks[0].ID}, {Parent: b.Tasks[0].ID}}
	if _, err := h.Create(ctx, []store.Create{{Batch: b}}); err == nil {
		t.Fatal("a dependency that stands twice was taken")
	}
	insert := func(t *tx) {
		t.put("insert_batches", rowsOf([]store.Create{{Batch: newBatch(1)}}, givenBatch), int64(0))
	}
	canceled, cancel := context.WithCancel(ctx)
	err := h.write(canceled, func(t *tx) error {
		insert(t)
		cancel()
		insert(t)
		return t.err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = h.write(ctx, func(t *tx) error {
			insert(t)
			panic("in the middle")
		})
	}()
	n := -1
	err = h.read(ctx, func(t *tx) error {
		t.query("count", "SELECT (SELECT count(*) FROM batch) + (SELECT count(*) FROM task)", func(r *row) error {
			n = r.int()
			return nil
		})
		return t.err
	})
	if n != 0 || err != nil {
		t.Errorf("%d rows are left, %v", n, err)
	}
	if _, err := h.Task(ctx, b.Tasks[0].ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Task: %v", err)
	}
	if _, err := h.Batch(ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Batch: %v", err)
	}
	if _, err := h.DAG(ctx, b.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("DAG: %v", err)
	}
	b.Tasks[1].Dependencies = b.Tasks[1].Dependencies[:1]
	h.create(b)
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := &harness{open(t, filepath.Join(t.TempDir(), "x.db"), newClock()), t, newID()}
	limit := func(pages string) {
		c := <-h.writers
		defer func() { h.writers <- c }()
		err := c.query(t.Context(), "PRAGMA max_page_count = "+pages, nil, func(*row) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("50")
	b := newBatch(1000)
	_, err := h.Create(t.Context(), []store.Create{{Batch: b}})
	if err == nil || !strings.Contains(err.Error(), "no space is left for "+h.path) {
		t.Errorf("Create: %v", err)
	}
	limit("100000")
	h.create(b)
}

func TestSumsStopAtTheGreatestNumber(t *testing.T) {
	t.Parallel()
	h := &harness{open(t, filepath.Join(t.TempDir(), "x.db"), newClock()), t, newID()}
	b := newBatch(3)
	for i, k := range b.Tasks {
		k.ExpectedCount = new(int64(1)<<32 + int64(i))
	}
	h.create(b)
	for _, k := range b.Tasks {
		h.settle(task.Outcome{ID: k.ID, Kind: task.Count, NewSuccess: 1<<63 - 1, NewFailures: 1<<32 - 1})
	}
	sum, err := h.Batch(t.Context(), b.ID)
	if err != nil || sum.Success != 1<<63-1 || sum.Failures != 3*(1<<32-1) || sum.Expected == nil || *sum.Expected != 3<<32+3 {
		t.Errorf("%+v %v", sum, err)
	}
}

// TestPlans: no statement walks a whole table, but those that say so, and none sorts what may be much.
func TestPlans(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	walks := []string{ // small tables, the head of one, or all of it by intention
		"release_deliveries", "lost_claims", "holders", "take_deltas", "events",
		"dirty_gates", "few_ready", "few_queued", "drift", "take_batch_deltas", "maybe_dead_ends", "pending_deltas",
		"gate_holders", "take_tally_events", "any_tallied", "changed_tasks", "unfolded_tasks", "unfolded_tallies",
		"expired_batches", "kinds",
		"insert_shapes", // for the foreign key, skipped as long as nothing violates it
	}
	sorts := []string{ // woken only the heads, pending_deltas and unfolded_… what no tick has taken yet, insert_batch_deltas what one transaction
		// has ended, count_batches what it counts, the rest what belongs to one task
		"drift", "woken", "dag_links", "batch_parents", "batch_deliveries", "pending_deltas", "insert_batch_deltas",
		"count_batches", "unfolded_tasks", "unfolded_tallies",
	}
	files, err := filepath.Glob("query/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(string(raw), "-- name: ") {
			name, _, _ := strings.Cut(part, "\n")
			if name == "" || strings.HasPrefix(name, "-- ") || name == "given" || strings.HasPrefix(name, "tasks") || strings.HasPrefix(name, "batches") || strings.HasPrefix(name, "limits") || strings.HasPrefix(name, "place") || strings.HasPrefix(name, "walk") || strings.HasPrefix(name, "deliveries_") || name == "delivery_items" || name == "few_pending" || name == "batch_has" || strings.HasPrefix(name, "created") {
				continue
			}
			for _, step := range planOf(t, s, s.queries.Get(name)) {
				if walk, ok := strings.CutPrefix(step, "SCAN "); ok && !slices.Contains(walks, name) && !harmless(walk) {
					t.Errorf("%s: %s", name, step)
				}
				if strings.HasPrefix(step, "USE TEMP B-TREE") && !slices.Contains(sorts, name) {
					t.Errorf("%s: %s", name, step)
				}
			}
		}
	}
	testListPlans(t, s)
}

// harmless: rows that are given, what a recursion or a subquery has found, and the few processes.
func harmless(walk string) bool {
	table, _, _ := strings.Cut(walk, " ")
	return strings.Contains(walk, "VIRTUAL TABLE") || strings.HasPrefix(walk, "(subquery") || walk == "CONSTANT ROW" || slices.Contains([]string{"hosts", "h", "walk", "w", "b", "process"}, table)
}

func planOf(t *testing.T, s *Store, sql string) []string {
	t.Helper()
	var steps []string
	err := s.write(t.Context(), func(t *tx) error {
		t.query("explain", "EXPLAIN QUERY PLAN "+sql, func(r *row) error {
			r.at = 3
			steps = append(steps, r.text())
			return nil
		}, int64(1), int64(1), int64(1), int64(1), int64(1), int64(1), int64(1))
		return t.err
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return steps
}

// testListPlans: a list goes along an index until it is full.
func testListPlans(t *testing.T, s *Store) {
	t.Helper()
	for from, want := range map[string]string{
		"tasks_by_facts\nWHERE t.id < ?1 ORDER BY t.id DESC":                     "SEARCH t USING COVERING INDEX sqlite_autoindex_task_1",
		"tasks_by_facts\nWHERE t.id < ?1 AND t.kind = ?2 ORDER BY t.id DESC":     "SEARCH t USING COVERING INDEX task_kind (kind=? AND id<?)",
		"tasks_by_facts\nWHERE t.id < ?1 AND t.batch_id = ?2 ORDER BY t.id DESC": "SEARCH t USING COVERING INDEX task_batch (batch_id=? AND id<?)",
		"tasks_by_ids\nWHERE p.task_id < ?2 ORDER BY p.task_id DESC":             "SEARCH t USING INDEX sqlite_autoindex_task_1 (id=?)",
		"tasks_by_state\nWHERE s.id < ?1 ORDER BY s.id DESC":                     "SEARCH s USING PRIMARY KEY (id<?)",
		"place_running\n": "SEARCH running USING PRIMARY KEY (task_id>? AND task_id<?)",
		"place_rest\n":    "SEARCH task_state USING COVERING INDEX task_state_rest (status=? AND id>? AND id<?)",
		"place_live\n":    "SEARCH parked USING PRIMARY KEY (task_id>? AND task_id<?)",
	} {
		name, rest, _ := strings.Cut(from, "\n")
		source := s.queries.Get(name)
		if strings.HasPrefix(name, "place") {
			source = fmt.Sprintf(s.queries.Get("tasks_in_place"), source)
		}
		steps := planOf(t, s, fmt.Sprintf(s.queries.Get("tasks"), source+"\n"+rest+" LIMIT 50"))
		if !slices.ContainsFunc(steps, func(step string) bool { return strings.HasPrefix(step, want) }) {
			t.Errorf("%s: %q", from, steps)
		}
		sorted := slices.Contains(steps, "USE TEMP B-TREE FOR ORDER BY")
		// Those that are named are sorted, and ready is if there is little in it.
		if few := name == "place_live" || name == "tasks_by_ids"; sorted != few {
			t.Errorf("%s: %q", from, steps)
		}
	}
}
