package postgres

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

func pumpParams(t *testing.T, s *Store) store.PumpParams {
	t.Helper()
	p := store.PumpParams{Owner: uuid.Must(uuid.NewV7()), Room: task.Room{Total: 100, PerHost: 100}}
	if err := s.Heartbeat(t.Context(), p.Owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	return p
}

func batchOfTasks(n int, rules ...task.Rule) *task.Batch {
	b := &task.Batch{
		ID: uuid.Must(uuid.NewV7()), Metadata: []byte("{}"), OnComplete: []task.Action{{URL: "http://a.test/done", Verb: "Post"}},
	}
	for range n {
		b.Tasks = append(b.Tasks, &task.Task{
			ID: uuid.Must(uuid.NewV7()), BatchID: b.ID, Kind: "work", Timeout: time.Hour, Metadata: json.RawMessage("{}"),
			OnStart: task.Action{URL: "http://a.test/run", Verb: "Post"}, Rules: rules,
		})
	}
	return b
}

func createTasks(t *testing.T, s *Store, n int, rules ...task.Rule) []*task.Task {
	t.Helper()
	b := batchOfTasks(n, rules...)
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	return b.Tasks
}

// What a tick reads while another process pumps must not be remembered: a new shape that was taken for known would be
// counted twice.
func TestBusyTickLearnsNothing(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	rule := task.Rule{Max: 2, Matcher: task.Matcher{Kind: "work", Status: task.Running}}
	tasks := createTasks(t, s, 3, rule)
	conn := lend(t, s)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	if pumped, err := s.Pump(t.Context(), p); err != nil || !pumped.Busy {
		t.Fatalf("Pump while another one does: %+v, %v", pumped, err)
	}
	do(t, conn, "rollback")
	pumped, err := s.Pump(t.Context(), p)
	if err != nil || len(pumped.Claims) != 2 {
		t.Errorf("%d tasks were claimed under a limit of 2, %v", len(pumped.Claims), err)
	}

	// Nor does it wait for what the other process is folding.
	if _, err := s.Settle(t.Context(), []task.Outcome{{ID: tasks[0].ID, Kind: task.Cancel}}); err != nil {
		t.Fatal(err)
	}
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	do(t, conn, "DELETE FROM batch_delta")
	do(t, conn, "DELETE FROM gate_delta")
	if pumped, err := s.Pump(t.Context(), p); err != nil || !pumped.Busy {
		t.Errorf("Pump while another one folds: %+v, %v", pumped, err)
	}
	do(t, conn, "rollback")
}

// createFamily creates a child and its parents, and has these claimed.
func createFamily(t *testing.T, s *Store, p store.PumpParams, parents int) (ends []task.Outcome, child *task.Task) {
	t.Helper()
	b := &task.Batch{ID: uuid.Must(uuid.NewV7()), Metadata: []byte("{}")}
	for range parents + 1 {
		child = &task.Task{
			ID: uuid.Must(uuid.NewV7()), BatchID: b.ID, Kind: "work", Timeout: time.Hour, Metadata: json.RawMessage("{}"),
			OnStart: task.Action{URL: "http://a.test/run", Verb: "Post"},
		}
		b.Tasks = append(b.Tasks, child)
	}
	for _, parent := range b.Tasks[:parents] {
		child.Dependencies = append(child.Dependencies, task.Dependency{Parent: parent.ID, RequiresSuccess: true})
		ends = append(ends, task.Outcome{ID: parent.ID, Kind: task.Update, Status: task.Success})
	}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != parents {
		t.Fatalf("%+v, %v", pumped, err)
	}
	return ends, child
}

// The next task of a chain is claimed in two round trips: nothing is asked for between what has happened and what is written.
func TestHopAsksForNothing(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	sent := map[int]int64{} // by the number of parents
	for _, parents := range []int{1, 2} {
		ends, child := createFamily(t, s, p, parents)
		if _, err := s.Settle(t.Context(), ends); err != nil {
			t.Fatal(err)
		}
		before := s.Statements()
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != child.ID {
			t.Fatalf("%d parents: %+v, %v", parents, pumped, err)
		}
		sent[parents] = s.Statements() - before
	}
	if sent[1] != sent[2]-1 {
		t.Errorf("statements by the number of parents that end: %v", sent)
	}
}

// What is rare is asked for when it is there, and after that until a tick finds none.
func TestRareIsLoadedWhenItIsThere(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	tick := func() int64 {
		t.Helper()
		before := s.Statements()
		if pumped, err := s.Pump(t.Context(), p); err != nil || pumped.Busy {
			t.Fatalf("%+v, %v", pumped, err)
		}
		return s.Statements() - before
	}
	usual := tick()
	for i := range 2 { // new shapes
		createTasks(t, s, 1, task.Rule{Matcher: task.Matcher{Kind: "work", Status: task.Running, Fields: []string{fmt.Sprint("f", i)}}, Max: 1})
		tick()
		var unknown int
		if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM shape WHERE version = 0").Scan(&unknown); err != nil || unknown > 0 {
			t.Errorf("a tick left %d unknown shapes, %v", unknown, err)
		}
	}
	if n := tick(); n != usual+1 {
		t.Errorf("%d statements after a tick that found something rare, %d before", n, usual)
	}
	if n := tick(); n != usual {
		t.Errorf("%d statements after a tick that found nothing, %d before", n, usual)
	}
}

// What limits a task is read after what lets it start: an end that comes in between must not be seen as an end alone.
func TestTalliesAreReadAfterEvents(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	b := batchOfTasks(2)
	b.OnComplete = nil
	parent, child := b.Tasks[0], b.Tasks[1]
	child.Dependencies = []task.Dependency{{Parent: parent.ID}}
	child.Rules = []task.Rule{{Matcher: task.Matcher{Kind: "work", Status: task.Failure}, Max: 1}}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	tick := func() store.Pumped {
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Error(err)
		}
		return pumped
	}
	askAll := func() { // as a tick does that has found something of everything
		s.expected = sorts{true, true, true}
		s.cursors.enter(heads{batchDeltas: {}, events: {}})
		readOnlyIfTold(s)
	}
	for pumped := tick(); pumped.Uncounted || pumped.More; pumped = tick() {
		time.Sleep(time.Millisecond)
	}
	askAll()
	tick() // so that the statements are prepared
	askAll()

	conn := lend(t, s)
	do(t, conn, "begin")
	do(t, conn, "LOCK TABLE batch_delta") // where the tick stops before it comes to the events
	ticked := make(chan store.Pumped)
	go func() { ticked <- tick() }()
	for waiting := false; !waiting; time.Sleep(time.Millisecond) {
		if err := s.pool.QueryRow(t.Context(),
			"SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'batch_delta'::regclass)").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	settled, err := s.Settle(t.Context(), []task.Outcome{
		{ID: parent.ID, Kind: task.Update, Status: task.Failure, FailureReason: "broken"},
	})
	if err != nil || settled.Results[0].Err != nil {
		t.Fatal(err, settled)
	}
	do(t, conn, "rollback")
	claims := (<-ticked).Claims
	for pumped := tick(); ; pumped = tick() {
		if claims = append(claims, pumped.Claims...); !pumped.More {
			break
		}
	}
	if len(claims) > 0 {
		t.Errorf("claimed %v, while one has failed and none may have", claims)
	}
}

// A child that is edited while the pump waits for it starts as it was edited.
func TestChildEditedMeanwhile(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	ends, child := createFamily(t, s, p, 1)
	if _, err := s.Settle(t.Context(), ends); err != nil {
		t.Fatal(err)
	}
	editor, _ := begun(t, s)
	do(t, editor, "UPDATE task_state SET last_updated = now() WHERE id = $1", child.ID)
	do(t, editor, `UPDATE task SET on_start = replace(on_start::text, 'run', 'edited')::json WHERE id = $1`, child.ID)
	edited := make(chan struct{})
	go func() {
		defer close(edited)
		waitForWaiter(t, s)
		do(t, editor, "commit")
	}()
	pumped, err := s.Pump(t.Context(), p)
	<-edited
	if err != nil || len(pumped.Claims) != 1 || pumped.Claims[0].Action.URL != "http://a.test/edited" {
		t.Errorf("%+v, %v", pumped.Claims, err)
	}
}

// A transaction that read which kinds are tallied before a rule was there leaves no event for it. The rule is counted only
// after such a transaction is over, or what it did would be missed; also if it got its id after the one that brought the
// rule.
func TestNewRuleWaitsForWhoDoesNotKnowIt(t *testing.T) {
	t.Parallel()
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprintf("later=%t", later), func(t *testing.T) {
			t.Parallel()
			testNewRule(t, later)
		})
	}
}

// What is found of a task while somebody may change it without an event must not stay.
func TestNewRuleKeepsNothingFromBefore(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := pumpParams(t, s)
	old := createTasks(t, s, 1)[0]
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 {
		t.Fatalf("%+v, %v", pumped, err)
	}
	before, _ := begun(t, s)
	rule := task.Rule{Type: task.Capacity, Max: 5, Matcher: task.Matcher{Kind: "work", Status: task.Running}}
	other := createTasks(t, s, 1, rule)[0]
	expect := task.Outcome{ID: old.ID, Kind: task.Update, ExpectedCount: new(int64(10))}
	if _, err := s.Settle(t.Context(), []task.Outcome{expect}); err != nil { // this one leaves an event
		t.Fatal(err)
	}
	for range 5 {
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 0 {
			t.Fatalf("%+v, %v", pumped, err)
		}
	}
	do(t, before, "DELETE FROM running WHERE task_id = $1", old.ID)
	do(t, before, "UPDATE task_state SET status = 6, ended_at = now() WHERE id = $1", old.ID)
	do(t, before, "commit")
	claims := 0
	for more := true; more; {
		pumped, err := s.Pump(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		claims, more = claims+len(pumped.Claims), pumped.More || pumped.Uncounted
	}
	if why, err := s.Explain(t.Context(), other.ID); err != nil || claims != 1 {
		t.Errorf("%d claims; %+v, %v", claims, why, err)
	}
}

func testNewRule(t *testing.T, later bool) {
	s := openForCommits(t)
	p := pumpParams(t, s)
	old := createTasks(t, s, 1)
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 {
		t.Fatalf("%+v, %v", pumped, err)
	}
	rule := task.Rule{Max: 1, Matcher: task.Matcher{Kind: "work", Status: task.Failure}}
	var before *pgxpool.Conn
	if !later {
		before, _ = begun(t, s)
	}
	creator, _ := begun(t, s)
	do(t, creator, "INSERT INTO shape (id, type, kind, status, fields) VALUES ($1, 0, 'work', 7, '[]')", int64(rule.Shape().ID))
	if later {
		before, _ = begun(t, s)
	}
	do(t, creator, "commit")
	waiter := createTasks(t, s, 1, rule)
	for i := range 5 {
		if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 0 || i > 1 && !pumped.Uncounted {
			t.Fatalf("tick %d: %+v, %v", i, pumped, err)
		}
	}
	// Those that wait for it hold up nobody, and have the pump do nothing again and again.
	createTasks(t, s, 300, rule)
	free := createTasks(t, s, 1)
	p.Room = task.Room{Total: 50, PerHost: 50}
	claims, ticks := 0, 0
	for more := true; more; ticks++ {
		pumped, err := s.Pump(t.Context(), p)
		if err != nil || ticks > 30 {
			t.Fatalf("tick %d: %+v, %v", ticks, pumped, err)
		}
		claims, more = claims+len(pumped.Claims), pumped.More
	}
	if why, err := s.Explain(t.Context(), free[0].ID); err != nil || claims != 1 || why.State.Status != task.Claimed {
		t.Errorf("%d claims, the free task is %s, %v", claims, why.State.Status, err)
	}
	do(t, before, "DELETE FROM running WHERE task_id = $1", old[0].ID)
	do(t, before, "UPDATE task_state SET status = 7, ended_at = now() WHERE id = $1", old[0].ID)
	do(t, before, "commit")
	for { // until the transactions of other tests are over, too
		pumped, err := s.Pump(t.Context(), p)
		if err != nil || len(pumped.Claims) != 0 {
			t.Fatalf("%+v, %v", pumped, err)
		}
		if !pumped.Uncounted && !pumped.More {
			break
		}
	}
	why, err := s.Explain(t.Context(), waiter[0].ID)
	if err != nil || !why.Gates[0].Counted || why.Gates[0].Used != 1 {
		t.Errorf("%+v, %v", why.Gates[0], err)
	}
}
