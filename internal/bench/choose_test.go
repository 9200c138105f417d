package bench_test

import (
	"fmt"
	"strings"
	"testing"

	"taskrunner/internal/bench"
)

// A workload that is not for this service is refused, and says what it needs.
func TestWorkloadsThatAreNotHere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ workload, database, url, want string }{
		{"snapshot", "sqlite", "", `the workload "snapshot" runs only on PostgreSQL`},
		{"snapshot/held/chain", "sqlite", "", `the workload "snapshot/held/chain" runs only on PostgreSQL`},
		{"replicas/2", "sqlite", "", `the workload "replicas/2" runs only on PostgreSQL`},
		{"snapshot", "sqlite", "http://x", `the workload "snapshot" runs only on a service that bench starts`},
		{"replicas", "postgres", "http://x", `the workload "replicas" runs only on a service that bench starts`},
		{"soak", "postgres", "http://x", `the workload "soak" runs only on a service that bench starts`},
		{"flat/7", "postgres", "", `there is no workload "flat/7"; there are ` + strings.Join(bench.Names(), ", ")},
	} {
		o := bench.Options{Workloads: []string{"flat/1000", test.workload}, Database: test.database, URL: test.url}
		if err := bench.Run(t.Context(), o); fmt.Sprint(err) != test.want {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
