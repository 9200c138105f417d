package sqlite

import (
	"context"
	"embed"
	"fmt"

	"taskrunner/internal/store"
)

//go:embed migration/*.sql
var migrationFiles embed.FS

const createMigration = `CREATE TABLE IF NOT EXISTS migration (
	version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`

// Migrate is as in store.Store. All pending migrations run in one transaction.
func (s *Store) Migrate(ctx context.Context) error {
	err := s.write(ctx, func(t *tx) error {
		t.query("create", createMigration, nil)
		pending, err := t.pendingMigrations()
		if err != nil {
			return err
		}
		for _, m := range pending {
			if err := t.conn.script(t.ctx, m.SQL); err != nil {
				return fmt.Errorf("migration %s: %w", m.Name, err)
			}
			t.query("record", "INSERT INTO migration VALUES (?1, ?2, ?3, ?4)", nil,
				int64(m.Version), m.Name, m.Checksum, micros(t.now))
		}
		t.recover()
		return t.err
	})
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

func (t *tx) pendingMigrations() ([]store.Migration, error) {
	applied := map[int]string{}
	t.query("applied", "SELECT version, checksum FROM migration", func(r *row) error {
		applied[r.int()] = r.text()
		return nil
	})
	if t.err != nil {
		return nil, t.err
	}
	return store.PendingMigrations(migrationFiles, applied)
}

// recover takes up what the last process left, if the schema is this program's already; else Migrate will.
func (s *Store) recover(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		found := false
		t.query("look", "SELECT 1 FROM sqlite_schema WHERE name = 'migration'", func(*row) error {
			found = true
			return nil
		})
		if t.err != nil || !found {
			return t.err
		}
		if pending, err := t.pendingMigrations(); err == nil && len(pending) == 0 {
			t.recover()
		}
		return t.err
	})
}

// recover ends the leases of earlier processes, once, before this one has any.
func (t *tx) recover() {
	if t.s.recovered {
		return
	}
	t.exec("leave_all")
	t.exec("release_deliveries", micros(t.now))
	t.committed = func() { t.s.recovered = true }
}
