package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/api"
)

// perStore is how many tasks are posted at once where that is not what is measured.
const perStore = 1000

// parked makes n tasks of which a rule lets one run, and holds that. It returns when all others are parked.
func (r *run) parked(ctx context.Context, n int) (*load, error) {
	l := r.receiver.newLoad(&load{
		kind: "parked", tasks: n, perPost: perStore, clients: 2, work: held, expect: &api.StatusCounts{Canceled: n},
		spec: func(int) spec { return spec{rules: concurrency("parked", "", 1)} },
		may:  func(int) (int, int) { return 0, 1 },
	})
	if n == 0 {
		return l, nil
	}
	if err := r.post(ctx, l); err != nil {
		return nil, err
	}
	// What has the lowest priority starts when everybody else was looked at.
	last := r.receiver.newLoad(&load{kind: "last", tasks: 1, spec: func(int) spec { return spec{priority: -1000} }})
	_, err := r.whole(ctx, last)
	return l, err
}

// waiting makes n tasks that wait for one that is held.
func (r *run) waiting(ctx context.Context, n int) (*load, error) {
	l := r.receiver.newLoad(&load{
		kind: "waiting", tasks: n, perPost: perStore, clients: 2, work: held, expect: &api.StatusCounts{Canceled: n},
		spec: func(task int) spec {
			if task%perStore == 0 {
				return spec{}
			}
			return spec{after: []int{task - task%perStore}}
		},
		may: func(task int) (int, int) {
			if task%perStore == 0 {
				return 1, 1
			}
			return 0, 0
		},
	})
	if err := r.post(ctx, l); err != nil {
		return nil, err
	}
	return l, r.wait(ctx, "tasks started", l.arrivals.Load, (n+perStore-1)/perStore)
}

// finished makes n tasks and runs them.
func (r *run) finished(ctx context.Context, n int) (*load, error) {
	l := r.receiver.newLoad(&load{kind: "finished", tasks: n, perPost: perStore, clients: 2})
	_, err := r.whole(ctx, l)
	return l, err
}

// cancel stops the batches of l, which does not end by itself.
func (r *run) cancel(ctx context.Context, l *load) error {
	return each(ctx, 1, len(l.batches), func(ctx context.Context, i int) error {
		r.progress.now("batch %d of %d canceled", i, len(l.batches))
		return r.do(ctx, request{method: http.MethodDelete, path: "/batch/" + l.batches[i], want: http.StatusOK})
	})
}

// backlog is flat on top of parked tasks.
func backlog(ctx context.Context, r *run, n int) error {
	if n > 0 {
		n = r.count(n, 50)
	}
	behind, err := r.parked(ctx, n)
	if err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	return errors.Join(flat(ctx, r, 200_000, 1000), r.cancel(ctx, behind), r.check(ctx, behind))
}

// besideStored is a trickle beside a million tasks that do nothing, and then the tasks alone.
func besideStored(ctx context.Context, r *run, state string) (err error) {
	n := r.count(1_000_000, 100)
	stored := r.receiver.newLoad(&load{kind: "nothing"})
	switch state {
	case "waiting":
		stored, err = r.waiting(ctx, n)
	case "parked":
		stored, err = r.parked(ctx, n)
	case "finished":
		stored, err = r.finished(ctx, n)
	}
	if err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	if err := r.wholeTrickle(ctx, r.duration(30*time.Second)); err != nil {
		return err
	}
	if err := r.idle(ctx); err != nil {
		return err
	}
	if stored.expect != nil {
		err = r.cancel(ctx, stored)
	}
	return errors.Join(err, r.check(ctx, stored))
}

// quiet waits until server and database have nothing left to do, but not for ever. Autovacuum comes once a minute, and a checkpoint
// every five; what they would do for what was stored is done at once.
func (r *run) quiet(ctx context.Context) error {
	if len(r.servers) == 0 {
		return nil
	}
	if r.database != nil {
		r.progress.now("vacuum")
		if _, err := r.database.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
		if _, err := r.database.Exec(ctx, "CHECKPOINT"); err != nil {
			return fmt.Errorf("write a checkpoint: %w", err)
		}
	}
	for begun, look := time.Now(), r.duration(2*time.Second); time.Since(begun) < r.duration(3*time.Minute); {
		busy, err := r.busy(ctx, look)
		if err != nil || busy < 0.02 {
			return err
		}
		r.progress.now("%.0f%% of a core, until it is quiet", 100*busy)
	}
	return nil
}

// busy is how much of a core server and database use.
func (r *run) busy(ctx context.Context, d time.Duration) (float64, error) {
	from, err := r.usage(ctx)
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	to, err := r.usage(ctx)
	if err != nil {
		return 0, err
	}
	used := to.server - from.server + to.database - from.database
	return used.Seconds() / to.at.Sub(from.at).Seconds(), nil
}

// idle measures for half a minute, whatever the scale, unless that is tiny: the lease is renewed every ten seconds.
func (r *run) idle(ctx context.Context) error {
	if len(r.servers) == 0 {
		return nil
	}
	d := 30 * time.Second
	if r.Scale < measuring {
		d = r.duration(d)
	}
	r.progress.now("idle")
	busy, err := r.busy(ctx, d)
	r.figure(Figure{Name: "idle: server and database", Unit: "% core", Value: 100 * busy})
	return err
}

// hosts is a trickle, while another host, with many tasks, does not answer and has its window full.
func hosts(ctx context.Context, r *run) error {
	address, err := r.receiver.listen()
	if err != nil {
		return err
	}
	release := make(chan struct{})
	slow := r.receiver.newLoad(&load{kind: "slow", tasks: r.count(100_000, 600), to: address, perPost: perStore, clients: 2, work: hung(release)})
	err = r.post(ctx, slow)
	if err == nil {
		err = r.wholeTrickle(ctx, min(r.duration(15*time.Second), 45*time.Second)) // less than WEBHOOK_TIMEOUT
	}
	close(release)
	if err != nil {
		return err
	}
	if err := r.wait(ctx, "tasks of the slow host reported on", slow.reported, slow.tasks); err != nil {
		return err
	}
	return r.check(ctx, slow)
}

// withSnapshot does something, when held is set while a transaction holds an old snapshot, as a backup does: what is deleted
// meanwhile cannot be cleaned up.
func withSnapshot(ctx context.Context, r *run, held bool, fn func() error) (err error) {
	if !held {
		return fn()
	}
	conn, err := pgx.Connect(ctx, r.db)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT count(*) FROM task"); err != nil {
		return err
	}
	return errors.Join(fn(), tx.Rollback(context.WithoutCancel(ctx)))
}
