package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"taskrunner/internal/app"
	"taskrunner/internal/config"
	"taskrunner/internal/telemetry"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and run tasks",
		Long:  "Serve the API and run tasks. Every setting is a flag or an environment variable of the same name.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := configure(cmd)
			if err != nil {
				return err
			}
			if os.Getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(memoryFor(c))
			}
			a, err := app.New(cmd.Context(), c, log)
			if err != nil {
				return err
			}
			if a.Open() {
				log.Warn("anybody who reaches this address can use the service; set AUTH_TOKEN, or LISTEN_ADDR=127.0.0.1",
					"address", a.Addr().String())
			}
			return a.Run(cmd.Context())
		},
	}
	addSettings(cmd, nil)
	return cmd
}

// memoryFor is beyond which memory the collector no longer saves its work: enough for what is always there, and for large
// requests at three times their size.
func memoryFor(c *config.Config) int64 {
	window := c.BodyWindow
	if len(c.HandleSecrets) > 0 {
		window += window / 4 // for reports whose tokens are in their bodies
	}
	return 128<<20 + 3*window
}

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date, as serve does when it starts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, log, err := configure(cmd)
			if err != nil {
				return err
			}
			s, err := app.OpenStore(cmd.Context(), c, log)
			if err != nil {
				return err
			}
			defer func() {
				if closing := s.Close(); err == nil {
					err = closing
				}
			}()
			if err := s.Migrate(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the schema is up to date")
			return nil
		},
	}
	addSettings(cmd, nil)
	return cmd
}

// addSettings adds the flags of all settings. What defaults has, by the name, is shown in place of the usual default.
func addSettings(cmd *cobra.Command, defaults map[string]string) {
	for _, s := range config.Settings() {
		cmd.Flags().String(s.Flag(), "", fmt.Sprintf("%s (%s, default %s)", s.Help, s.Name, cmp.Or(defaults[s.Name], s.Default)))
	}
}

// configure reads the flags of cmd and the environment.
func configure(cmd *cobra.Command) (*config.Config, *slog.Logger, error) {
	flags := map[string]string{}
	for _, s := range config.Settings() {
		if f := cmd.Flags().Lookup(s.Flag()); f != nil && f.Changed {
			flags[f.Name] = f.Value.String()
		}
	}
	c, err := config.Load(flags, os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	var w io.Writer = os.Stderr
	if c.LogOff {
		w = io.Discard
	}
	return c, telemetry.NewLogger(w, c.LogLevel), nil
}
