package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// urlVariable names the environment variable that replaces the shared cluster by a server somebody else runs.
const urlVariable = "TASKRUNNER_TEST_DATABASE_URL"

// poolerVariable names the environment variable that puts a pgbouncer in transaction mode in front of each cluster.
const poolerVariable = "TASKRUNNER_TEST_PGBOUNCER"

// dropTimeout bounds the removal of a test's schema, which waits for transactions that the test left open.
const dropTimeout = 30 * time.Second

// shared is the cluster of this test process. It is a global because a test has no other way to what TestMain owns.
var shared sharedCluster

type sharedCluster struct {
	mu      sync.Mutex
	cluster *Cluster
	err     error // of the first start; it is not tried again for each test
}

// Main runs a package's tests and then stops the cluster that [URL] started for them, if any did. Call it from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Pooled reports whether TASKRUNNER_TEST_PGBOUNCER is set: all URLs lead through a pgbouncer in transaction mode then.
func Pooled() bool { return os.Getenv(poolerVariable) != "" }

// URL returns a connection URL, for pgx, to an empty schema that is dropped when tb ends. The first call in a process
// starts the shared cluster, unless TASKRUNNER_TEST_DATABASE_URL names a server. The schema stands alone on the
// search_path, a parameter of the URL: statements that do not name a schema, migrations among them, stay inside it.
// When [Pooled] it is a database instead: a pooler takes no such parameter.
// Everything that uses it has to be closed before the test's end. It fails tb if there is no PostgreSQL.
func URL(tb testing.TB) string {
	tb.Helper()
	base, err := shared.url(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	name := uniqueName(tb.Name())
	create, drop, within := "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE", withSearchPath
	if Pooled() { // the pooler keeps connections to it
		create, drop, within = "CREATE DATABASE "+name, "DROP DATABASE "+name+" WITH (FORCE)", withDatabase
	}
	if err := execute(tb.Context(), base, create); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), dropTimeout)
		defer cancel()
		if err := execute(ctx, base, drop); err != nil {
			tb.Errorf("%v (does the test leave a transaction open?)", err)
		}
	})
	u, err := url.Parse(base)
	if err != nil || u.Scheme == "" {
		tb.Fatalf("parse %s: want the form postgres://user@host:port/database", urlVariable)
	}
	return within(*u, name)
}

// NewCluster starts a cluster that belongs to tb alone and ends with it. It takes a second or two: use [URL] where the
// server itself is not what the test is about. TASKRUNNER_TEST_DATABASE_URL does not replace it.
func NewCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c, err := Start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// url returns the URL of the server that this process's tests share, and starts it if it is not up yet.
func (s *sharedCluster) url(ctx context.Context) (string, error) {
	if given := os.Getenv(urlVariable); given != "" {
		return given, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil && s.err == nil {
		s.cluster, s.err = Start(ctx)
	}
	if s.err != nil {
		return "", s.err
	}
	return s.cluster.URL(), nil
}

func (s *sharedCluster) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Close()
}

// uniqueName makes a name that says which test it belongs to and is unique even among processes that share a server. It
// needs no quotes.
func uniqueName(test string) string {
	const limit = 40 // PostgreSQL cuts names at 63 bytes
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, strings.ToLower(test))
	return clean[:min(len(clean), limit)] + "_" + strings.ToLower(rand.Text()[:12])
}

func withSearchPath(u url.URL, schema string) string {
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

func withDatabase(u url.URL, database string) string {
	u.Path = "/" + database
	return u.String()
}

// execute runs one statement on a connection of its own.
func execute(ctx context.Context, url, statement string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() {
		if e := conn.Close(context.WithoutCancel(ctx)); e != nil && err == nil {
			err = fmt.Errorf("close connection: %w", e)
		}
	}()
	if _, err = conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("run %q: %w", statement, err)
	}
	return nil
}
