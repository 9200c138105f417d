package postgres

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is what processes NOTIFY each other on.
const channel = "taskrunner_work"

// Notify is as in store.Store.
func (s *Store) Notify(ctx context.Context) error {
	if _, err := s.engine.Exec(ctx, "SELECT pg_notify($1, '')", channel); err != nil {
		return fmt.Errorf("notify: %w", redact(err))
	}
	return nil
}

// Listen is as in store.Store. It holds a connection of its own, outside the pool. It also wakes after each time it
// has connected: what was said before is lost.
func (s *Store) Listen(ctx context.Context, wake func()) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		err := s.listen(ctx, func() {
			pause = 100 * time.Millisecond
			wake()
		})
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("listening for other processes failed; will connect again", "error", redact(err))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (s *Store) listen(ctx context.Context, wake func()) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing is lost with it
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	for {
		wake()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// deletionCount counts rows that were deleted from the tables of the pump since their last vacuum.
type deletionCount struct{ n atomic.Int64 }

func (d *deletionCount) add(n int) { d.n.Add(int64(n)) }

// vacuumAfter is how many deletions make Maintain vacuum. Each tick walks the dead rows at the head of ready until
// somebody does, and autovacuum comes once a minute.
const vacuumAfter = 20_000

// Maintain is as in store.Store: it forgets marks and old keys, and vacuums the queue tables when many of their rows are dead.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.forget(ctx); err != nil {
		return err
	}
	if err := s.purge(ctx); err != nil {
		return err
	}
	n := s.deletions.n.Load()
	if n < vacuumAfter {
		return nil
	}
	for _, table := range []string{
		"ready", "parked", "running", "gate", "gate_delta", "tally", "tally_event", "dep_event", "batch_delta", "mark", "idempotency_key",
	} {
		if _, err := s.engine.Exec(ctx, "VACUUM (SKIP_LOCKED, TRUNCATE off) "+table); err != nil {
			return fmt.Errorf("vacuum %s: %w", table, redact(err))
		}
	}
	s.deletions.n.Add(-n)
	return nil
}

// hasPoolSize reports whether a connection string sets the size of the pool.
func hasPoolSize(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has("pool_max_conns")
	}
	return strings.Contains(dsn, "pool_max_conns")
}
