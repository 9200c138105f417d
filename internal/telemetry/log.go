// Package telemetry is how the service is observed: the logger, and a decorator of the store that counts what goes
// through it.
package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger writes to w: text when w is a terminal, JSON lines otherwise.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
