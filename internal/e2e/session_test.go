package e2e

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
)

// Behind the pooler a connection has another session for each transaction, or the tests would prove nothing there.
func TestSessionsOfAConnection(t *testing.T) {
	t.Parallel()
	url := databaseURL(t, "postgres")
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
		return conn
	}
	session := func(conn *pgx.Conn) (pid uint32) {
		if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	a, b := connect(), connect()
	first := session(a)
	if _, err := b.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	sessions := map[uint32]bool{first: true, session(a): true, session(a): true}
	if changes := len(sessions) > 1; changes != pgtest.Pooled() {
		t.Errorf("a connection that makes three transactions has %d sessions", len(sessions))
	}
}
