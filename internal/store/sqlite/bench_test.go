package sqlite

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// BenchmarkLife takes batches of 500 tasks through create, claim, start and finish, and says what each costs a task in
// the best round: the worst ones tell about the machine.
func BenchmarkLife(b *testing.B) {
	for _, rules := range []bool{false, true} {
		b.Run(fmt.Sprintf("rules=%t", rules), func(b *testing.B) { benchmarkLife(b, rules) })
	}
}

func benchmarkLife(b *testing.B, rules bool) {
	const n = 500
	ctx := b.Context()
	s, err := Open(ctx, Options{Path: filepath.Join(b.TempDir(), "bench.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Migrate(ctx); err != nil {
		b.Fatal(err)
	}
	owner := newID()
	if err := s.Heartbeat(ctx, owner, time.Hour); err != nil {
		b.Fatal(err)
	}
	spent := map[string]time.Duration{}
	timed := func(what string, fn func()) {
		begun := time.Now()
		fn()
		spent[what] = min(cmp.Or(spent[what], time.Hour), time.Since(begun))
	}
	for b.Loop() {
		batch := newBatch(n)
		for i, k := range batch.Tasks {
			k.Name = fmt.Sprintf("load page %d", i)
			k.Metadata = json.RawMessage(fmt.Sprintf(`{"project":"p%d","page":%d,"source":"https://data.test/x"}`, i%50, i))
			k.OnStart.Headers = map[string]string{"Content-Type": "application/json", "X-Team": "ingest"}
			k.OnStart.Body = json.RawMessage(`{"bucket":"raw","options":{"retry":true,"depth":3}}`)
			if rules {
				k.Rules = []task.Rule{{Matcher: task.Matcher{Kind: "ingest", Status: task.Running, Fields: []string{"project"}}, Max: 20}}
			}
		}
		timed("create", func() {
			if _, err := s.Create(ctx, []store.Create{{Batch: batch}}); err != nil {
				b.Fatal(err)
			}
		})
		var pumped store.Pumped
		timed("claim", func() {
			if pumped, err = s.Pump(ctx, store.PumpParams{Owner: owner, Room: room, Fetch: 64}); err != nil {
				b.Fatal(err)
			}
		})
		if len(pumped.Claims) != n {
			b.Fatalf("%d claims", len(pumped.Claims))
		}
		outcomes := make([]task.Outcome, n)
		for i, c := range pumped.Claims {
			outcomes[i] = task.Outcome{ID: c.ID, Kind: task.Started, Attempt: 1, StartStatus: 200}
		}
		timed("start", func() {
			if _, err := s.Settle(ctx, outcomes); err != nil {
				b.Fatal(err)
			}
		})
		for i, c := range pumped.Claims {
			outcomes[i] = task.Outcome{ID: c.ID, Kind: task.Update, Status: task.Success, NewSuccess: 1}
		}
		timed("finish", func() {
			if _, err := s.Settle(ctx, outcomes); err != nil {
				b.Fatal(err)
			}
		})
	}
	for what, d := range spent {
		b.ReportMetric(float64(d.Microseconds())/n, what+"-best-µs/task")
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "tasks/s")
}
