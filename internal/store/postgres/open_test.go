package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
)

// Statements are prepared unless a pooler is in between: without that single tasks cost twice as much.
func TestOpenPreparesStatements(t *testing.T) {
	t.Parallel()
	byItself := pgx.QueryExecModeCacheStatement
	if pgtest.Pooled() {
		byItself = pgx.QueryExecModeCacheDescribe
	}
	url := pgtest.URL(t)
	for given, want := range map[string]pgx.QueryExecMode{
		"": byItself,
		"&default_query_exec_mode=cache_statement": pgx.QueryExecModeCacheStatement,
		"&default_query_exec_mode=cache_describe":  pgx.QueryExecModeCacheDescribe,
	} {
		s, err := Open(t.Context(), Options{URL: url + given})
		if err != nil {
			t.Fatal(err)
		}
		for name, pool := range map[string]pgx.QueryExecMode{
			"pool": s.pool.Config().ConnConfig.DefaultQueryExecMode, "engine": s.engine.Config().ConnConfig.DefaultQueryExecMode,
		} {
			if pool != want {
				t.Errorf("%q: %s of the %s, want %s", given, pool, name, want)
			}
		}
		_ = s.Close()
	}
}

func TestOpenRefusesToGuessTypes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"exec", "simple_protocol"} {
		_, err := Open(t.Context(), Options{URL: "postgres://127.0.0.1:1/db?default_query_exec_mode=" + mode})
		if err == nil || !strings.Contains(err.Error(), "default_query_exec_mode in DATABASE_URL must be") {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// Whoever holds a session hears a notification, and whoever looks for it finds it.
func TestListen(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for _, pooled := range []bool{false, true} {
		if !pooled && pgtest.Pooled() {
			continue // there is no session
		}
		s, err := Open(t.Context(), Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.pooled != pgtest.Pooled() {
			t.Errorf("pooled is %t", s.pooled)
		}
		s.pooled = pooled
		woken, ended := make(chan struct{}, 100), make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			defer close(ended)
			s.Listen(ctx, func() { woken <- struct{}{} })
		}()
		<-woken // it may have missed something before
		other, err := Open(t.Context(), Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Close() })
		for range 2 {
			for range 10 {
				if !pooled { // else it cannot tell
					notify(t, s)
				}
			}
			notify(t, other)
			<-woken // once, for the other
		}
		stop()
		<-ended
		if n := len(woken); n > 0 {
			t.Errorf("pooled %t: woken %d times more, by itself", pooled, n)
		}
	}
}

func notify(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Notify(t.Context()); err != nil {
		t.Fatal(err)
	}
}
