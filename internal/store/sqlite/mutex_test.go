package sqlite

import (
	"path/filepath"
	"sync/atomic"
	"testing"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

var opened, withMutex atomic.Int64 // connections

func countMutex(tls *libc.TLS, db, _, _ uintptr) int32 {
	opened.Add(1)
	if lib.Xsqlite3_db_mutex(tls, db) != 0 {
		withMutex.Add(1)
	}
	return lib.SQLITE_OK
}

func TestConnectionsHaveNoMutex(t *testing.T) {
	t.Parallel()
	open(t, filepath.Join(t.TempDir(), "first.db"), newClock()) // so that what it registers comes before what counts: SQLite calls them in their order
	onOpen(countMutex)
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	if _, err := s.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if opened.Load() < 2 || withMutex.Load() > 0 {
		t.Errorf("%d connections, %d have a mutex", opened.Load(), withMutex.Load())
	}
}
