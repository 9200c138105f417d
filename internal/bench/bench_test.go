package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"taskrunner/internal/app"
	"taskrunner/internal/bench"
	"taskrunner/internal/config"
	"taskrunner/internal/pgtest"
)

// TestMain also makes this binary the service and the stub that bench starts.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "serve" && os.Args[1] != "bench" {
		pgtest.Main(m)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	run := serve
	if os.Args[1] == "bench" {
		run = func(ctx context.Context) error { return bench.Stub(ctx, os.Stdin, os.Stdout) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	c, err := config.Load(nil, os.Getenv)
	if err != nil {
		return err
	}
	a, err := app.New(ctx, c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// options run a workload at a tiny scale.
func options(t *testing.T, database string, workloads ...string) (o bench.Options, out *bytes.Buffer) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out = &bytes.Buffer{}
	return bench.Options{
		Program: program, Database: database, Workloads: workloads, Runs: 1, Scale: 0.0001, JSON: true, Out: out, Log: t.Output(),
		Postgres: func(context.Context) (string, func() error, error) {
			return pgtest.URL(t), func() error { return nil }, nil
		},
	}, out
}

// TestWorkloads runs each workload on both databases.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	// Of those with many variants, which differ in little.
	some := map[string][]string{
		"flat": {"flat/10"}, "ingest": {"ingest/1000"}, "chain": {"chain/20x50"}, "counters": {"counters/put-1000", "counters/array-1"},
		"limits":  {"limits/10000-keys-max-1-and-100-overall", "limits/10000-keys-max-5-across-kinds", "limits/handoff"},
		"backlog": {"backlog/10000"}, "trickle": {"trickle/waiting"}, "snapshot": {"snapshot/none/chain", "snapshot/held/chain"},
		"replicas": {"replicas/2/flat/1000", "replicas/4/limits/handoff"},
	}
	for _, database := range []string{"sqlite", "postgres"} {
		for _, name := range bench.Names() {
			if database == "sqlite" && (name == "snapshot" || name == "replicas") {
				continue
			}
			t.Run(database+"/"+name, func(t *testing.T) {
				t.Parallel()
				workloads := some[name]
				if workloads == nil {
					workloads = []string{name}
				}
				o, out := options(t, database, workloads...)
				if err := bench.Run(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				checkReport(t, out.Bytes(), workloads)
			})
		}
	}
}

// checkReport wants figures of each workload.
func checkReport(t *testing.T, raw []byte, workloads []string) {
	t.Helper()
	var report struct {
		Machine struct{ Cores int }
		Runs    []struct {
			Workload, Error string
			Figures         []bench.Figure
		}
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	if report.Machine.Cores == 0 || len(report.Runs) < len(workloads) {
		t.Errorf("the report is %s", raw)
	}
	for _, run := range report.Runs {
		if !slices.ContainsFunc(workloads, func(w string) bool { return strings.HasPrefix(run.Workload, w) }) {
			t.Errorf("%s was not asked for", run.Workload)
		}
		if !slices.ContainsFunc(run.Figures, func(f bench.Figure) bool { return f.Value > 0 && (f.More || f.Unit == "ms") }) {
			t.Errorf("%s has no rate and no latency: %+v", run.Workload, run.Figures)
		}
		spread := func(f bench.Figure) bool {
			return strings.HasPrefix(f.Name, "ticks of the pump") && f.Value > 0 && f.Value <= 100
		}
		if replicas := strings.HasPrefix(run.Workload, "replicas/"); slices.ContainsFunc(run.Figures, spread) != replicas {
			t.Errorf("%s: %+v", run.Workload, run.Figures)
		}
	}
}
