package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// became asks what a transaction came to whose COMMIT got no answer: nil if it is committed, else cause, and then it
// never will be. Every transaction begins by writing its mark; to ask is to write the same mark, which waits for the
// transaction to be over, and keeps one out that has not got as far as to write its own.
func (s *Store) became(ctx context.Context, token task.ID, cause error) error {
	// Nobody can go on without the answer: what was claimed or counted must be known. So this waits for the database to
	// come back, as long as the caller waits, and a while longer.
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(10*time.Second, cancel) })()
	for {
		committed, err := s.ask(asking, token)
		if err == nil && committed {
			s.marks.done(token)
			return nil
		}
		if err == nil {
			return &connError{cause} // its mark stays for a day: the transaction may still be on its way
		}
		select { // the database does not answer yet
		case <-asking.Done():
			// Not to be run again: cause says that the connection broke, and is not wrapped.
			return fmt.Errorf("%w: outcome of a transaction is not known: %s", store.ErrUnavailable, redact(cause).Error())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask is one question of became.
func (s *Store) ask(ctx context.Context, token task.ID) (committed bool, err error) {
	ctx, cancel := s.engine.within(ctx)
	defer cancel()
	err = s.engine.QueryRow(ctx, s.queries.Get("became"), token).Scan(&committed)
	return committed, err
}

// marks are those of transactions that nobody will ask about any more.
type marks struct {
	mu     sync.Mutex
	tokens []task.ID
	tidied bool
}

func (m *marks) done(token task.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens = append(m.tokens, token)
}

// forget deletes marks, and once those that are left of processes that died.
func (s *Store) forget(ctx context.Context) error {
	m := &s.marks
	m.mu.Lock()
	tokens, tidied := slices.Clone(m.tokens), m.tidied
	m.mu.Unlock()
	if !tidied {
		if err := s.exec(ctx, "forget_old"); err != nil {
			return fmt.Errorf("forget old marks: %w", err)
		}
	}
	if len(tokens) > 0 {
		if err := s.exec(ctx, "forget", uuids(tokens)); err != nil {
			return fmt.Errorf("forget marks: %w", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tidied = true
	m.tokens = slices.Delete(m.tokens, 0, len(tokens)) // others came behind them
	return nil
}
