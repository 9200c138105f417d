package postgres

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often a process looks whether another one has notified it: as often as one does so at most.
	lookEvery = 50 * time.Millisecond
	// maxLook is the longest pause while the database is away.
	maxLook = 5 * time.Second
)

// Notify is as in store.Store.
func (s *Store) Notify(ctx context.Context) error {
	if _, err := s.engine.Exec(ctx, s.queries.Get("notify")); err != nil {
		return fmt.Errorf("notify: %w", redact(err))
	}
	return nil
}

// Listen is as in store.Store. It counts instead of using LISTEN, which needs a session of its own: behind a pooler in
// transaction mode LISTEN succeeds, and nothing is ever heard.
func (s *Store) Listen(ctx context.Context, wake func()) {
	heard := int64(-1)
	for pause := lookEvery; ; {
		var said int64
		err := s.engine.QueryRow(ctx, s.queries.Get("notifications")).Scan(&said)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("listening for other processes failed; will try again", "error", redact(err))
			pause = min(2*pause, maxLook)
		default:
			pause = lookEvery
		}
		if err == nil && said != heard {
			heard = said
			wake()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
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

// says reports whether a connection string has a parameter.
func says(dsn, parameter string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		return u.Query().Has(parameter)
	}
	return strings.Contains(dsn, parameter)
}
