// Command taskrunner runs the task orchestrator: a client POSTs a batch of tasks that form a DAG, the service starts each
// by calling its webhook, and workers report on the handle.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is built.
var version = "dev"

func main() {
	log.SetOutput(io.Discard) // net/http prints what a receiver sends that nobody asked for: it may echo secrets
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300) // the heap is small, and most of it short-lived: a fifth less CPU for some tens of MB
	}
	if err := root().ExecuteContext(untilSignal()); err != nil {
		fmt.Fprintln(os.Stderr, "taskrunner:", err)
		os.Exit(1)
	}
}

// untilSignal ends with the first signal. By then, not a moment later, a second one ends the process at once.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first := <-signals
		signal.Stop(signals)
		cancel(fmt.Errorf("%s signal received", first))
	}()
	return ctx
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "taskrunner",
		Short:         "Run DAGs of tasks whose workers are behind HTTP",
		Version:       fmt.Sprintf("%s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	cmd.AddCommand(serveCommand(), migrateCommand(), devCommand(), benchCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", cmd.Name(), cmd.Version)
		},
	})
	return cmd
}
