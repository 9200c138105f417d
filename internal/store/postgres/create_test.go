package postgres

import (
	"testing"

	"taskrunner/internal/task"
)

// A large create works for a while. Who brings the same new rule does not wait for more than its commit.
func TestShapesAreInsertedLast(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	createTasks(t, s, 1) // statements are prepared
	conn, _ := begun(t, s)
	do(t, conn, "LOCK TABLE ready IN EXCLUSIVE MODE")
	created := make(chan struct{})
	go func() {
		defer close(created)
		createTasks(t, s, 1, task.Rule{Max: 1, Matcher: task.Matcher{Kind: "work", Status: task.Running}})
	}()
	const waiting = `SELECT count(*), count(*) FILTER (WHERE EXISTS (
			SELECT FROM pg_locks s WHERE s.pid = l.pid AND s.relation = 'shape'::regclass AND s.mode = 'RowExclusiveLock'
		)) FROM pg_locks l WHERE l.relation = 'ready'::regclass AND NOT l.granted`
	for waits, inserted := 0, 0; waits == 0; {
		if err := s.pool.QueryRow(t.Context(), waiting).Scan(&waits, &inserted); err != nil {
			t.Fatal(err)
		}
		if inserted > 0 {
			t.Error("its shape is inserted while it waits for something else")
		}
	}
	do(t, conn, "commit")
	<-created
}
