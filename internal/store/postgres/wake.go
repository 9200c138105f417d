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

const (
	// countEvery is how often a process that cannot LISTEN looks whether another one has notified it: as often as one does so
	// at most.
	countEvery = 50 * time.Millisecond
	// The pauses while the database is away.
	minListenPause = 100 * time.Millisecond
	maxListenPause = 5 * time.Second
)

// Notify is as in store.Store.
func (s *Store) Notify(ctx context.Context) error {
	if err := s.exec(ctx, "notify", channel, s.self); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

// Listen is as in store.Store. Behind a pooler it looks for notifications: in transaction mode LISTEN succeeds there, and
// nothing is ever heard. It also wakes after each time that the database was away: what was said meanwhile may be lost.
func (s *Store) Listen(ctx context.Context, wake func()) {
	hear := s.listen
	if s.pooled {
		hear = s.count
	}
	for pause := minListenPause; ctx.Err() == nil; pause = min(2*pause, maxListenPause) {
		err := hear(ctx, func() {
			pause = minListenPause
			s.cursors.forget()
			wake()
		})
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("listening for other processes failed; will try again", "error", redact(err))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// listen holds a connection of its own, outside the pools.
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
	wake()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if notification.Payload != s.self { // it knows what it said
			wake()
		}
	}
}

// count asks how often anybody has notified: it cannot tell who.
func (s *Store) count(ctx context.Context, wake func()) error {
	for heard := int64(-1); ; {
		said, err := s.said(ctx)
		if err != nil {
			return err
		}
		if said != heard {
			heard = said
			wake()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(countEvery):
		}
	}
}

// said is how often anybody has notified.
func (s *Store) said(ctx context.Context) (n int64, err error) {
	ctx, cancel := s.engine.within(ctx)
	defer cancel()
	err = s.engine.QueryRow(ctx, s.queries.Get("notifications")).Scan(&n)
	return n, err
}

// deletionCount counts rows that were deleted from the tables of the pump since their last vacuum.
type deletionCount struct{ n atomic.Int64 }

func (d *deletionCount) add(n int) { d.n.Add(int64(n)) }

// vacuumAfter is how many deletions make Maintain vacuum. Whoever reads the heads of queues walks the dead rows before them until
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
		"ready", "parked", "running", "gate", "gate_delta", "tally", "tally_event", "dep_event", "batch_delta", "dead_end", "mark",
		"idempotency_key", "expired",
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
