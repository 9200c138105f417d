package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"taskrunner/internal/http1"
)

// Options say what to measure.
type Options struct {
	// URL is of a service that runs. Empty: each run starts one of its own, on an empty database. Of a service that runs
	// only what its clients see is measured, and the floor is HTTP alone.
	URL string
	// Token is what the service wants as a bearer token. Empty: none.
	Token string
	// Program runs the service as "Program serve" and the stub as "Program bench stub".
	Program string
	// Database is sqlite or postgres.
	Database string
	// Postgres starts a throw-away server; with Database postgres only. Close ends it.
	Postgres func(ctx context.Context) (url string, close func() error, err error)
	// Workloads are names of workloads or of their variants (flat, flat/1000). Empty: all.
	Workloads []string
	// Runs is how often each is run. All take turns, so that a machine that slows down does so for all.
	Runs int
	// Scale multiplies the counts and the durations.
	Scale float64
	// Patience is how long nothing may happen before a run counts as stuck; 0: two minutes.
	Patience time.Duration
	// JSON writes the report as JSON instead of a table.
	JSON bool
	// Version of the program, for the report.
	Version string
	// Out takes the report. Log takes what happens meanwhile; Terminal says that lines of it may be written over.
	Out, Log io.Writer
	Terminal bool
}

// Run measures and reports, also when ctx ends before all is measured. The error names the runs that were wrong; the report
// says what was wrong with them.
func Run(ctx context.Context, o Options) (err error) {
	variants, err := choose(o.Workloads, o.Database, o.URL == "")
	if err != nil {
		return err
	}
	b := &bench{Options: o, transport: &http1.Transport{IdleTimeout: maxIdle, Other: &http.Transport{}}}
	b.progress.out, b.progress.terminal = o.Log, o.Terminal
	if err := b.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	rep := newResults(&b.Options, b.databaseVersion)
	wrong := b.turns(ctx, variants, rep)
	if err := rep.write(o.Out); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("wrong: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// turns makes all runs, or those there is time for, and names those that were wrong.
func (b *bench) turns(ctx context.Context, variants []variant, rep *results) (wrong []string) {
	for i := range b.Runs {
		for _, v := range variants {
			b.progress.begin("%s, run %d of %d", v.name, i+1, b.Runs)
			figures, err := b.run(ctx, v)
			if ctx.Err() != nil {
				return wrong
			}
			b.progress.end(err)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%s, run %d", v.name, i+1))
			}
			rep.add(v.name, figures, err)
		}
	}
	return wrong
}

// maxIdle is how long a connection may wait for its next request. Servers wait for longer, so it is not closed on the way.
const maxIdle = 10 * time.Second

// bench is what all runs share.
type bench struct {
	Options
	transport *http1.Transport
	progress  progress

	dir             string // for databases and logs
	postgresURL     string // of the server's own database
	closePostgres   func() error
	databaseVersion string
}

func (b *bench) open(ctx context.Context) (err error) {
	b.closePostgres = func() error { return nil }
	if b.dir, err = os.MkdirTemp("", "taskrunner-bench-"); err != nil {
		return fmt.Errorf("make a directory for databases: %w", err)
	}
	if b.URL == "" && b.Database == "postgres" {
		if b.postgresURL, b.closePostgres, err = b.Postgres(ctx); err != nil {
			return errors.Join(fmt.Errorf("start PostgreSQL: %w", err), os.RemoveAll(b.dir))
		}
	}
	if b.databaseVersion = b.URL; b.URL == "" {
		b.databaseVersion, err = b.version(ctx)
	}
	if err != nil {
		return errors.Join(err, b.close())
	}
	return nil
}

func (b *bench) close() error {
	b.transport.CloseIdleConnections()
	return errors.Join(b.closePostgres(), os.RemoveAll(b.dir))
}

// run is one run of a variant, between two looks at the floor.
func (b *bench) run(ctx context.Context, v variant) (_ []Figure, err error) {
	receiver, err := newReceiver(b)
	if err != nil {
		return nil, err
	}
	defer receiver.close()
	before, err := b.floor(ctx, receiver, v.floor)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	r := &run{bench: b, receiver: receiver, unit: v.unit}
	if err := r.measured(ctx, v); err != nil {
		return nil, err
	}
	after, err := b.floor(ctx, receiver, v.floor)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	for _, l := range *receiver.loads.Load() { // once more: what comes late may be too much
		if err := l.seen(); err != nil {
			return nil, err
		}
	}
	floor := before.mean(after)
	for i := range r.figures {
		if f := &r.figures[i]; f.floor != nil {
			f.Floor = f.floor(floor)
		}
	}
	return r.figures, nil
}

// choose finds workloads and variants by name, or all that can be measured here.
func choose(names []string, database string, own bool) (chosen []variant, err error) {
	all := variants()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(v variant) bool { return v.lacks(database, own) != "" }), nil
	}
	for _, name := range names {
		found, lacks := false, ""
		for _, v := range all {
			if v.name != name && !strings.HasPrefix(v.name, name+"/") {
				continue
			}
			if lack := v.lacks(database, own); lack != "" {
				lacks = lack
				continue
			}
			chosen, found = append(chosen, v), true
		}
		switch {
		case !found && lacks != "":
			return nil, fmt.Errorf("the workload %q runs only on %s", name, lacks)
		case !found:
			return nil, fmt.Errorf("there is no workload %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	return chosen, nil
}

// lacks is what the variant needs and does not have here; empty: nothing. own: the service is started for it.
func (v *variant) lacks(database string, own bool) string {
	switch {
	case v.own && !own:
		return "a service that bench starts"
	case v.postgres && database != "postgres":
		return "PostgreSQL"
	}
	return ""
}

// Names are those of all workloads, in the order in which they run.
func Names() (names []string) {
	for _, v := range variants() {
		if name, _, _ := strings.Cut(v.name, "/"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// count is n at the scale that was asked for, at least atLeast.
func (b *bench) count(n, atLeast int) int { return max(int(float64(n)*b.Scale), min(n, atLeast)) }

// duration is d at the scale that was asked for, at least half a second.
func (b *bench) duration(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*b.Scale), 500*time.Millisecond)
}
