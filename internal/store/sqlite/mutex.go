package sqlite

import (
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// dropMutexes makes connections that are opened from now on go without a mutex of their own, which SQLite would take twice
// for each value that is read: a tenth of what a task costs. SQLITE_OPEN_NOMUTEX does the same, but the driver cannot be told
// to pass it on. It asks for what the driver asks for as well: nobody uses a connection while somebody else does. What
// connections share keeps its mutexes.
func dropMutexes() { onOpen(dropMutex) }

// dropMutex takes the mutex of db away: SQLite passes over one that is null. Its few bytes are lost.
func dropMutex(_ *libc.TLS, db, _, _ uintptr) int32 {
	(*(**lib.Tsqlite3)(unsafe.Pointer(&db))).Fmutex = 0
	return lib.SQLITE_OK
}

// onOpen makes SQLite call function, which must not be a closure, at the end of opening a connection. To say it again
// changes nothing.
func onOpen(function func(tls *libc.TLS, db, message, api uintptr) int32) {
	tls := libc.NewTLS()
	defer tls.Close()
	lib.Xsqlite3_auto_extension(tls, *(*uintptr)(unsafe.Pointer(&function))) // a function is a pointer, as in C
}
