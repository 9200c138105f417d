// Package pgtest gives tests a real PostgreSQL, 15 or newer: a throw-away cluster of their own, or a schema in one.
//
// It stands outside the flow of a task; only tests, internal/e2e and cmd may import it.
// A package whose tests need PostgreSQL says once
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// and each test asks for [URL], an empty schema of its own in a cluster that the package's tests share, or, when it
// wants to restart or kill the server, for [NewCluster], a cluster of its own.
//
// Invariants:
//   - A cluster that is already on the machine is never touched: ours has a fresh temporary directory and a free port
//     of 127.0.0.1, and reads no PG* variable. The exception is asked for: with TASKRUNNER_TEST_DATABASE_URL set,
//     URL makes its schemas on that server and starts none.
//   - A server never outlives its test process, not even one killed with SIGKILL: a watchdog holds the reading end of
//     a pipe from the test process, and at its end stops the server and removes the directory.
//   - With TASKRUNNER_TEST_PGBOUNCER set a pgbouncer in transaction mode stands in front of each cluster, and all URLs lead
//     through it. It ends with the cluster.
//   - A missing PostgreSQL is an error that says what to do. It never skips a test.
//   - fsync is on, as in production: a test of durability means something. Authentication is off; the data is not worth
//     protecting.
//
// Schemas separate tables, types and functions. NOTIFY channels, advisory locks and pg_stat_activity belong to the whole
// database, so tests that share a cluster see each other's: a test for which that matters takes NewCluster.
package pgtest
