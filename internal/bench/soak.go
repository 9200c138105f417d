package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	soakTime = 10 * time.Minute
	// soakKept is which part of that time a batch is kept after its end.
	soakKept = 5
	soakPost = 100
	// soakLooks is how often the size of the database is looked at.
	soakLooks = 8
)

// soakSettings are those of the service: it removes what is old.
func soakSettings(b *bench) []string {
	kept := b.duration(soakTime) / soakKept
	return []string{fmt.Sprintf("RETENTION_DAYS=%.9f", kept.Hours()/24)}
}

// soak is a steady load of half the top rate, while old batches are removed: the database must not go on growing.
func soak(ctx context.Context, r *run) error {
	top := r.receiver.newLoad(&load{kind: "top", tasks: r.count(100_000, 100), perPost: 1000, clients: clientsFor(1000)})
	begun := time.Now()
	if _, err := r.whole(ctx, top); err != nil {
		return err
	}
	rate := float64(top.tasks) / time.Since(begun).Seconds() / 2
	lasts := r.duration(soakTime)
	posts := max(1, int(rate*lasts.Seconds()/soakPost))
	l := r.receiver.newLoad(&load{
		kind: "soak", tasks: posts * soakPost, perPost: soakPost, since: func(task int) (int, bool) { return task, true },
	})
	err := r.measure(ctx, func() (int, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		looked := make(chan error, 1)
		go func() { looked <- r.lookAtSize(ctx, lasts/soakLooks) }()
		err := r.steadily(ctx, l, lasts/time.Duration(posts))
		if err != nil {
			cancel()
		}
		err = errors.Join(err, <-looked)
		if err == nil {
			err = r.wait(ctx, "tasks reported on", l.reported, l.tasks)
		}
		return l.tasks, err
	})
	if err != nil {
		return err
	}
	r.latency("due to started", l.arrived, floor.p50, floor.p99)
	if err := r.sizes(ctx); err != nil {
		return err
	}
	if err := r.wait(ctx, "batches removed that are old", r.gone(ctx, top.batches[0]), 1); err != nil {
		return err
	}
	return errors.Join(top.seen(), l.seen(), r.lives(ctx, l)) // which batches are still there is a question of time
}

// gone counts a batch that is not there any more.
func (r *run) gone(ctx context.Context, batch string) func() int64 {
	return func() int64 {
		if err := r.do(ctx, request{method: http.MethodGet, path: "/batch/" + batch, want: http.StatusNotFound}); err != nil {
			return 0
		}
		return 1
	}
}

// steadily posts l, a request at a time each, whatever became of the one before.
func (r *run) steadily(ctx context.Context, l *load, every time.Duration) error {
	begun := r.receiver.now()
	posts := l.tasks / l.perPost
	return each(ctx, 64, posts, func(ctx context.Context, i int) error {
		due := begun + time.Duration(i)*every
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(due - r.receiver.now()):
		}
		first := i * l.perPost
		for task := first; task < first+l.perPost; task++ {
			l.sent[task].Store(int64(due))
		}
		return r.postSome(ctx, l, first, l.perPost)
	})
}

// lookAtSize tells the size of the database now and then.
func (r *run) lookAtSize(ctx context.Context, every time.Duration) error {
	for i := range soakLooks {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
		size, err := r.size(ctx)
		if err != nil {
			return err
		}
		r.figure(Figure{Name: fmt.Sprintf("size of the database after %d/%d of the time", i+1, soakLooks), Unit: "MB", Value: float64(size) / 1e6})
	}
	return nil
}

// size is that of the database, in bytes.
func (r *run) size(ctx context.Context) (size int64, err error) {
	if r.database != nil {
		err = r.database.QueryRow(ctx, `SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`).Scan(&size)
		return size, err
	}
	path := strings.TrimPrefix(r.db, "sqlite:")
	for _, name := range []string{path, path + "-wal"} {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	return size, nil
}

// sizes tells the largest tables of PostgreSQL.
func (r *run) sizes(ctx context.Context) error {
	if r.database == nil {
		return nil
	}
	rows, err := r.database.Query(ctx, `SELECT relname, pg_total_relation_size(oid) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 2 DESC LIMIT 5`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var size int64
		if err := rows.Scan(&name, &size); err != nil {
			return err
		}
		r.figure(Figure{Name: "size of table " + name, Unit: "MB", Value: float64(size) / 1e6})
	}
	return rows.Err()
}
