package e2e

import (
	"testing"

	"taskrunner/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// databases are what every behavior is tested on.
var databases = func() []string {
	if pgtest.Pooled() {
		return []string{"postgres"}
	}
	return []string{"sqlite", "postgres"}
}()

// onBoth runs a test on each database, in parallel.
func onBoth(t *testing.T, test func(t *testing.T, s *service)) {
	t.Helper()
	onBothWith(t, nil, test)
}

// onBothWith is onBoth with settings, as startService takes them.
func onBothWith(t *testing.T, settings map[string]string, test func(t *testing.T, s *service)) {
	t.Helper()
	onEach(t, func(t *testing.T, db string) { test(t, startService(t, databaseURL(t, db), settings)) })
}

// onEach runs a test for each database, in parallel, and leaves it to the test what runs on it.
func onEach(t *testing.T, test func(t *testing.T, db string)) {
	t.Helper()
	t.Parallel()
	for _, db := range databases {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			test(t, db)
		})
	}
}
