// Package sqlite keeps tasks in one SQLite file, for one process: no server, nothing to set up. It is the default for
// development and small installations; the contract is in package store, and package postgres has the same statements
// under the same names.
//
// A lock on <path>.lock makes this process the only one. Within it one connection writes, one transaction at a time,
// and others read beside it (WAL). What returned nil is on the disk (synchronous=FULL).
//
// Every step is one statement, however many tasks it is about. It takes its rows from Go through a virtual table
// (given.go), which costs a quarter of taking them out of JSON.
//
// Since no other process can live, opening ends all leases: what the last process claimed is handed out by the next
// TakeOver at once.
package sqlite

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"
	sqlite3 "modernc.org/sqlite"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

//go:embed query/*.sql
var queryFiles embed.FS

// Options of [Open].
type Options struct {
	// Path of the database, which is created if it is missing. Its directory must exist.
	Path string
	// DeadEnds makes [Store.DeadEnds] find what it looks for.
	DeadEnds bool
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Log takes what is wrong but fails nobody; nil: nowhere.
	Log *slog.Logger
}

// Store is a store.Store on SQLite.
type Store struct {
	path    string
	lock    *flock.Flock
	driver  *sqlite3.Driver
	queries *store.Queries
	log     *slog.Logger
	clock   func() time.Time

	deadEnds bool

	ended     store.EndedBatches[store.BatchItem]
	endedSums store.EndedBatches[store.BatchSums]

	writers chan *conn // the one that writes; who has it holds the lock of the writer
	readers chan *conn // nil: not open yet
	engine  chan *conn // one more that reads, for what keeps the service going: requests may keep all others busy
	lists   store.Lists
	closing func() error

	// Under the lock of the writer.
	given     *given
	shapes    *store.Shapes
	recovered bool
}

var _ store.Store = (*Store)(nil)

// errClosed answers calls after Close.
var errClosed = errors.New("database is closed")

const (
	// readers is how many may read at once.
	readers = 4
	// closeWait is how long Close waits for calls under way.
	closeWait = 10 * time.Second
)

// Open takes the lock of the database and opens it. It fails at once when another process has it, or another Store of
// this one.
func Open(ctx context.Context, o Options) (*Store, error) {
	path, err := resolve(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{
		path: path, lock: flock.New(path + ".lock"), driver: &sqlite3.Driver{}, queries: store.LoadQueries(queryFiles),
		log: o.Log, clock: o.Now, deadEnds: o.DeadEnds, writers: make(chan *conn, 1), readers: make(chan *conn, readers), engine: make(chan *conn, 1), lists: store.NewLists(readers),
		given: &given{}, shapes: store.NewShapes(),
	}
	s.closing = sync.OnceValue(s.close)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	switch locked, err := s.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("open database: lock %s: %w", s.lock.Path(), err)
	case !locked:
		return nil, fmt.Errorf("open database: %s is in use by another process", path)
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", s.explain(err)), s.lock.Unlock())
	}
	return s, nil
}

// resolve gives one name to a file, so that it has one lock.
func resolve(path string) (string, error) {
	if path == "" {
		return "", errors.New("no path")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil // not there yet
}

func (s *Store) open(ctx context.Context) error {
	dropMutexes()
	s.driver.MustRegisterDeterministicScalarFunction("metadata_contains", 2, metadataContains)
	if err := s.driver.RegisterModule("given", s.given); err != nil {
		return err
	}
	writer, err := s.connect(ctx, writerSettings+s.queries.Get("given"))
	if err != nil {
		return err
	}
	for range readers {
		s.readers <- nil
	}
	s.engine <- nil
	s.writers <- writer
	if err := s.recover(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// metadataContains is task.Contains for SQL.
func metadataContains(_ *sqlite3.FunctionContext, args []driver.Value) (driver.Value, error) {
	container, _ := args[0].(string)
	part, _ := args[1].(string)
	return task.Contains([]byte(container), []byte(part)), nil
}

// Unused lists the statements that no call has run yet. For tests.
func (s *Store) Unused() []string { return s.queries.Unused() }

// Close waits for calls under way, closes the database and gives up its lock. Later calls do nothing.
func (s *Store) Close() error { return s.closing() }

func (s *Store) close() error {
	late := time.After(closeWait)
	var errs []error
	pools := slices.Repeat([]chan *conn{s.readers}, readers)
	for _, from := range append(pools, s.engine, s.writers) { // the writer last: it folds the log into the file
		select {
		case c := <-from:
			if c != nil {
				errs = append(errs, c.close())
			}
		case <-late:
			errs = append(errs, fmt.Errorf("still in use after %s", closeWait))
		}
	}
	close(s.writers)
	close(s.readers)
	close(s.engine)
	errs = append(errs, s.lock.Unlock())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// Health asks the database for a sign of life. It counts the connections that read.
func (s *Store) Health(ctx context.Context) (store.Health, error) {
	err := s.read(ctx, func(t *tx) error {
		t.query("ask", "SELECT 1", func(*row) error { return nil })
		return t.err
	})
	if err != nil {
		return store.Health{}, fmt.Errorf("ask database: %w", err)
	}
	return store.Health{PoolSize: readers, PoolIdle: len(s.readers)}, nil
}

// now is the time in the precision that is kept.
func (s *Store) now() time.Time { return s.clock().UTC().Truncate(time.Microsecond) }

// explain says what a result code of SQLite means for who runs the service.
func (s *Store) explain(err error) error {
	failure, ok := errors.AsType[*sqlite3.Error](err)
	if !ok {
		return err
	}
	switch failure.Code() & 0xff {
	case 5, 6:
		return fmt.Errorf("%s is locked by another program: %w", s.path, err)
	case 8:
		return fmt.Errorf("%s or its directory cannot be written: %w", s.path, err)
	case 10:
		return fmt.Errorf("%s cannot be read or written: %w", s.path, err)
	case 11, 26:
		return fmt.Errorf("%s is damaged or not a database: %w", s.path, err)
	case 13:
		return fmt.Errorf("no space is left for %s: %w", s.path, err)
	case 14:
		return fmt.Errorf("%s cannot be opened: %w", s.path, err)
	}
	return err
}
