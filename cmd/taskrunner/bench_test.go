package main

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"taskrunner/internal/bench"
)

func TestCheckBench(t *testing.T) {
	t.Parallel()
	const scale, runs, address = "--scale is above 0 and up to 10, not ", "--runs is at least 1, not ", "--url is http://HOST[:PORT] or https://HOST[:PORT], not "
	for _, test := range []struct {
		change func(o *bench.Options)
		want   string // of the error, how it begins
	}{
		{func(*bench.Options) {}, "<nil>"},
		{func(o *bench.Options) { o.Database = "postgres" }, "<nil>"},
		{func(o *bench.Options) { o.Database = "mysql" }, `--db is sqlite or postgres, not "mysql"`},
		{func(o *bench.Options) { o.Scale = 10 }, "<nil>"},
		{func(o *bench.Options) { o.Scale = 0 }, scale + "0"},
		{func(o *bench.Options) { o.Scale = -1 }, scale + "-1"},
		{func(o *bench.Options) { o.Scale = 10.5 }, scale + "10.5"},
		{func(o *bench.Options) { o.Scale = math.NaN() }, scale + "NaN"},
		{func(o *bench.Options) { o.Scale = math.Inf(1) }, scale + "+Inf"},
		{func(o *bench.Options) { o.Scale = math.Inf(-1) }, scale + "-Inf"},
		{func(o *bench.Options) { o.Runs = 0 }, runs + "0"},
		{func(o *bench.Options) { o.URL = "localhost:8085" }, address + `"localhost:8085"`},
		{func(o *bench.Options) { o.URL = "127.0.0.1:8085" }, address + `"127.0.0.1:8085"`},
		{func(o *bench.Options) { o.URL = "ftp://x" }, address + `"ftp://x"`},
		{func(o *bench.Options) { o.URL = "/" }, address + `"/"`},
		{func(o *bench.Options) { o.URL = "http://" }, address + `"http://"`},
		{func(o *bench.Options) { o.URL = "http://:8085" }, address + `"http://:8085"`},
		{func(o *bench.Options) { o.URL = "http://x:y" }, address + `"http://x:y"`},
		{func(o *bench.Options) { o.URL = "http://x?a=b" }, address + `"http://x?a=b"`},
	} {
		o := bench.Options{Database: "sqlite", Scale: 1, Runs: 1}
		test.change(&o)
		if err := checkBench(&o); !strings.HasPrefix(fmt.Sprint(err), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// Paths are put behind the URL.
func TestBenchURL(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"": "", "http://x:8085": "http://x:8085", "http://x:8085/": "http://x:8085", "https://[::1]/runner//": "https://[::1]/runner",
	} {
		o := bench.Options{URL: given, Database: "sqlite", Scale: 1, Runs: 1}
		if err := checkBench(&o); err != nil || o.URL != want {
			t.Errorf("%q: %q, %v; want %q", given, o.URL, err, want)
		}
	}
}
