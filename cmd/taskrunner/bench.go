package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"taskrunner/internal/bench"
	"taskrunner/internal/pgtest"
)

func benchCommand() *cobra.Command {
	o := bench.Options{Version: version, Log: os.Stderr, Terminal: isTerminal(os.Stderr), Token: os.Getenv("AUTH_TOKEN"), Postgres: startPostgres}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a service under load, beside what HTTP and the database alone would need",
		Long: "Measure a service under load, beside what HTTP and the database alone would need. Without --url each run starts a service\n" +
			"of its own on an empty database; PostgreSQL's server programs must be there for --db postgres. A run that was not exact fails.\n\n" +
			"Workloads: " + strings.Join(bench.Names(), ", ") + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := checkBench(&o); err != nil {
				return err
			}
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Out = cmd.OutOrStdout()
			return bench.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.URL, "url", "", "a service that runs, to be measured from outside; AUTH_TOKEN is its token")
	cmd.Flags().StringVar(&o.Database, "db", "sqlite", "database of the services that are started: sqlite or postgres")
	cmd.Flags().StringSliceVar(&o.Workloads, "workload", nil, "workloads, or variants of them (flat/1000), with commas between (default all)")
	cmd.Flags().IntVar(&o.Runs, "runs", 1, "how often each is run, in turns")
	cmd.Flags().Float64Var(&o.Scale, "scale", 1, "factor of all counts and durations")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "report in JSON")
	cmd.AddCommand(&cobra.Command{
		Use:    "stub",
		Short:  "Be the other side while bench measures HTTP alone",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return bench.Stub(cmd.Context(), os.Stdin, os.Stdout) },
	})
	return cmd
}

// checkBench refuses what cannot be measured. Paths are put behind the URL, which therefore loses a slash at its end.
func checkBench(o *bench.Options) error {
	if o.Database != "sqlite" && o.Database != "postgres" {
		return fmt.Errorf("--db is sqlite or postgres, not %q", o.Database)
	}
	if !(o.Scale > 0 && o.Scale <= 10) { // NaN is neither
		return fmt.Errorf("--scale is above 0 and up to 10, not %v", o.Scale)
	}
	if o.Runs < 1 {
		return fmt.Errorf("--runs is at least 1, not %d", o.Runs)
	}
	if o.URL == "" {
		return nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("--url is http://HOST[:PORT] or https://HOST[:PORT], not %q", o.URL)
	}
	o.URL = strings.TrimRight(o.URL, "/")
	return nil
}

func startPostgres(ctx context.Context) (string, func() error, error) {
	c, err := pgtest.Start(ctx)
	if err != nil {
		return "", nil, err
	}
	return c.URL(), c.Close, nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
