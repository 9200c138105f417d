package sqlite

import (
	"context"
	"fmt"
	"os"
)

// Notify does nothing: there is no other process.
func (s *Store) Notify(context.Context) error { return nil }

// Listen waits for ctx: there is no other process.
func (s *Store) Listen(ctx context.Context, _ func()) { <-ctx.Done() }

// checkpointAfter is how long the log gets before Maintain folds it into the file.
const checkpointAfter = 4 << 20

// Maintain deletes old keys, and folds the log into the file, so that fewer commits have to; that does not hold up the
// writer. Statistics for the planner are left alone: every statement is written for one plan.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.purge(ctx); err != nil {
		return err
	}
	if info, err := os.Stat(s.path + "-wal"); err != nil || info.Size() < checkpointAfter {
		return nil //nolint:nilerr // no log, no work
	}
	err := s.using(ctx, s.readers, func(t *tx) error {
		t.query("checkpoint", "PRAGMA wal_checkpoint(PASSIVE)", func(*row) error { return nil })
		return t.err
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
