package bench

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
)

//go:embed floor
var floorFiles embed.FS

func floorQueries(database string) *store.Queries {
	files, err := fs.Sub(floorFiles, "floor/"+database)
	if err != nil {
		panic(err) // the path is ours
	}
	return store.LoadQueries(files)
}

func (b *bench) openFloor(ctx context.Context, url string) (floorStore, error) {
	queries := floorQueries(b.Database)
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		return openFloorSQLite(ctx, path, queries)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	s := &floorPostgres{conn: conn, queries: queries}
	var backend int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	_, _, s.postmaster = cpuTime(backend)
	return s, nil
}

type floorPostgres struct {
	conn       *pgx.Conn
	queries    *store.Queries
	postmaster int
}

// run sends all statements at once, which makes them one transaction.
func (s *floorPostgres) run(ctx context.Context, rows floorRows, statements ...string) error {
	var batch pgx.Batch
	for _, name := range statements {
		text := s.queries.Get(name)
		switch strings.Count(text, "$") {
		case 0:
			batch.Queue(text)
		case 1:
			batch.Queue(text, rows.ids)
		default:
			batch.Queue(text, rows.ids, rows.metadata, rows.starts)
		}
	}
	return s.conn.SendBatch(ctx, &batch).Close()
}

func (s *floorPostgres) used(ctx context.Context) (time.Duration, int64, error) {
	var wal int64
	err := s.conn.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&wal)
	return treeTime(s.postmaster), wal, err
}

func (s *floorPostgres) close(ctx context.Context) error { return s.conn.Close(ctx) }

type floorSQLite struct {
	db       *sql.DB
	conn     *sql.Conn
	queries  *store.Queries
	prepared map[string]*sql.Stmt
}

func openFloorSQLite(ctx context.Context, path string, queries *store.Queries) (floorStore, error) {
	// The settings of the service.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=cache_size(-32768)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &floorSQLite{db: db, conn: conn, queries: queries, prepared: map[string]*sql.Stmt{}}, nil
}

func (s *floorSQLite) run(ctx context.Context, rows floorRows, statements ...string) (err error) {
	if _, err := s.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, name := range statements {
		if err := s.statement(ctx, name, rows); err != nil {
			return fmt.Errorf("%s: %w", name, err) // the database goes
		}
	}
	_, err = s.conn.ExecContext(ctx, "COMMIT")
	return err
}

func (s *floorSQLite) statement(ctx context.Context, name string, rows floorRows) (err error) {
	text := s.queries.Get(name)
	if strings.HasPrefix(text, "CREATE") {
		_, err := s.conn.ExecContext(ctx, text)
		return err
	}
	stmt := s.prepared[name]
	if stmt == nil {
		if stmt, err = s.conn.PrepareContext(ctx, text); err != nil {
			return err
		}
		s.prepared[name] = stmt
	}
	for i, id := range rows.ids {
		var err error
		switch {
		case strings.HasPrefix(text, "SELECT"):
			err = drain(ctx, stmt, id[:], strings.Contains(text, "?1"))
		case strings.Contains(text, "?3"):
			_, err = stmt.ExecContext(ctx, id[:], rows.metadata[i], rows.starts[i])
		default:
			_, err = stmt.ExecContext(ctx, id[:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drain reads all rows of a query.
func drain(ctx context.Context, stmt *sql.Stmt, id []byte, takesID bool) (err error) {
	args := []any{id}
	if !takesID {
		args = nil
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
	}
	return rows.Err()
}

func (s *floorSQLite) used(context.Context) (time.Duration, int64, error) { return 0, 0, nil }

func (s *floorSQLite) close(context.Context) error {
	var errs []error
	for _, stmt := range s.prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, s.conn.Close(), s.db.Close())...)
}
