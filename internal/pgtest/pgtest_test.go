package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
)

// orphanVariable makes this test binary the process that TestServerEndsWithKilledProcess kills.
const orphanVariable = "PGTEST_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) != "" {
		orphan()
	}
	pgtest.Main(m)
}

// orphan starts a cluster, says where, and waits to be killed.
func orphan() {
	c, err := pgtest.Start(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(c.Addr())
	time.Sleep(10 * time.Minute)
	os.Exit(1)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func scan[T any](t *testing.T, conn *pgx.Conn, query string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func exec1(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestURLGivesEachTestItsOwnSchema(t *testing.T) {
	t.Parallel()
	a, b := connect(t, pgtest.URL(t)), connect(t, pgtest.URL(t))
	for _, conn := range []*pgx.Conn{a, b} {
		exec1(t, conn, "CREATE TABLE thing (id int)")
	}
	exec1(t, a, "INSERT INTO thing VALUES (1)")
	if n := scan[int](t, b, "SELECT count(*) FROM thing"); n != 0 {
		t.Errorf("rows of another schema are seen: %d", n)
	}
	if os.Getenv("TASKRUNNER_TEST_DATABASE_URL") == "" {
		if on := scan[string](t, a, "SHOW fsync"); on != "on" {
			t.Errorf("fsync = %s, want on", on)
		}
	}
}

func TestURLDropsTheSchema(t *testing.T) {
	t.Parallel()
	var schema string
	t.Run("inner", func(t *testing.T) {
		conn := connect(t, pgtest.URL(t))
		exec1(t, conn, "CREATE TABLE thing (id int)")
		schema = scan[string](t, conn, "SELECT current_schema()::text")
	})
	conn := connect(t, pgtest.URL(t))
	if n := scan[int](t, conn, "SELECT count(*) FROM pg_namespace WHERE nspname = '"+schema+"'"); n != 0 {
		t.Errorf("schema %s is still there", schema)
	}
}

func TestClusterKeepsCommittedRows(t *testing.T) {
	t.Parallel()
	c := pgtest.NewCluster(t)
	conn := connect(t, c.URL())
	exec1(t, conn, "CREATE TABLE thing (id int)")
	exec1(t, conn, "INSERT INTO thing VALUES (1)")

	addr := c.Addr()
	c.Restart(t)
	if c.Addr() != addr {
		t.Errorf("address changed from %s to %s", addr, c.Addr())
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a connection outlived the restart")
	}
	if n := scan[int](t, connect(t, c.URL()), "SELECT count(*) FROM thing"); n != 1 {
		t.Errorf("%d rows after restart, want 1", n)
	}

	c.Kill(t)
	c.Kill(t)
	if _, err := pgx.Connect(t.Context(), c.URL()); err == nil {
		t.Error("a killed server takes connections")
	}
	c.Restart(t)
	if n := scan[int](t, connect(t, c.URL()), "SELECT count(*) FROM thing"); n != 1 {
		t.Errorf("%d rows after kill, want 1", n)
	}
}

func TestServerEndsWithKilledProcess(t *testing.T) {
	t.Parallel()
	for _, killed := range []string{"while initdb runs", "when the server is up"} {
		t.Run(killed, func(t *testing.T) {
			t.Parallel()
			tmp := openTempDir(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), orphanVariable+"=1", "TMPDIR="+tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			addr := ""
			if killed == "when the server is up" {
				line, err := bufio.NewReader(out).ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				addr = strings.TrimSpace(line)
				connect(t, "postgres://postgres@"+addr+"/postgres?sslmode=disable")
			} else {
				eventually(t, "initdb begins", func() bool { return matches(t, tmp, "*/data/PG_VERSION") == 1 })
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			eventually(t, "the cluster's directory goes", func() bool { return matches(t, tmp, "*") == 0 })
			if conn, err := net.Dial("tcp", addr); err == nil {
				_ = conn.Close()
				t.Errorf("the server still listens at %s", addr)
			}
		})
	}
}

// openTempDir is a directory that the server's user may use, too; t.TempDir is not.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgtest-open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func matches(t *testing.T, dir, pattern string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// eventually polls: processes that are not our children tell us nothing.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited 30 s in vain until %s", what)
}
