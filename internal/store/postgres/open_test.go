package postgres

import (
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
