package dispatch

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Pauses between attempts to reach the database.
const (
	minStorePause = 10 * time.Millisecond
	maxStorePause = time.Second
)

// trouble logs an error that repeats itself once when it begins, and once when it is over.
type trouble struct {
	log  *slog.Logger
	what string
	on   atomic.Bool
}

// report takes what came of one try. An error because ctx ended is no trouble.
func (t *trouble) report(ctx context.Context, err error) {
	switch {
	case err != nil && ctx.Err() == nil:
		if !t.on.Swap(true) {
			t.log.Error(t.what+": failing, will go on trying", "error", err)
		}
	case err == nil && t.on.Load() && t.on.Swap(false):
		t.log.Info(t.what + ": works again")
	}
}

// persist calls write as often as it takes, while the process lives.
func (d *Dispatcher) persist(t *trouble, write func() error) {
	for pause := minStorePause; ; pause = min(2*pause, maxStorePause) {
		err := write()
		if t.report(d.work, err); err == nil || !sleep(pause, d.work.Done(), nil) {
			return
		}
	}
}
