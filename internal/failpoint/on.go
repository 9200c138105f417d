//go:build failpoint

package failpoint

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// variable names the point and which time the process is there, as in "claimed:3".
const variable = "TASKRUNNER_FAILPOINT"

// Store returns s that kills the process at the point that the environment names; s itself if it names none.
func Store(s store.Store) store.Store {
	point, times, found := strings.Cut(os.Getenv(variable), ":")
	if !found {
		return s
	}
	at, err := strconv.ParseInt(times, 10, 64)
	if err != nil {
		panic(variable + ": " + err.Error())
	}
	return &failing{Store: s, point: point, at: at}
}

type failing struct {
	store.Store
	point string
	at    int64
	hits  atomic.Int64
}

// hit is where the process dies if it was to die at that point. It counts only when there is something to lose.
func (f *failing) hit(point string, matters bool) {
	if !matters || point != f.point || f.hits.Add(1) != f.at {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint %s:%d\n", point, f.at)
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal may take a moment
}

// Create has "created", when nobody has been answered yet.
func (f *failing) Create(ctx context.Context, creates []store.Create) ([]store.Created, error) {
	created, err := f.Store.Create(ctx, creates)
	f.hit("created", err == nil)
	return created, err
}

// Pump has "claimed", when nothing has been sent yet, and "pump-ended", when the outbox has not been told yet.
func (f *failing) Pump(ctx context.Context, p store.PumpParams) (store.Pumped, error) {
	pumped, err := f.Store.Pump(ctx, p)
	f.pumped(&pumped)
	return pumped, err
}

func (f *failing) pumped(pumped *store.Pumped) {
	f.hit("claimed", len(pumped.Claims) > 0)
	f.hit("pump-ended", pumped.Outbox)
}

// TakeOver has "taken-over", when nothing has been sent again yet.
func (f *failing) TakeOver(ctx context.Context, owner task.ID) ([]store.Claim, error) {
	claims, err := f.Store.TakeOver(ctx, owner)
	f.hit("taken-over", len(claims) > 0)
	return claims, err
}

// Settle has "start-accepted" and "start-refused", when an answer to on_start has been read, and "start-settled" and
// "end-settled", when nobody has learned of what is durable.
func (f *failing) Settle(ctx context.Context, outcomes []task.Outcome) (store.Settled, error) {
	f.answered(outcomes)
	settled, err := f.Store.Settle(ctx, outcomes)
	f.settled(outcomes, &settled, err)
	return settled, err
}

// SettleAndPump has the points of Settle, and those of Pump.
func (f *failing) SettleAndPump(ctx context.Context, outcomes []task.Outcome, turn store.Turn) (store.Settled, *store.Pumped, error) {
	f.answered(outcomes)
	settled, pumped, err := f.Store.SettleAndPump(ctx, outcomes, turn)
	f.settled(outcomes, &settled, err)
	if pumped != nil {
		f.pumped(pumped)
	}
	return settled, pumped, err
}

func (f *failing) answered(outcomes []task.Outcome) {
	f.hit("start-accepted", has(outcomes, task.Started))
	f.hit("start-refused", has(outcomes, task.StartFailed))
}

func (f *failing) settled(outcomes []task.Outcome, settled *store.Settled, err error) {
	f.hit("start-settled", err == nil && has(outcomes, task.Started))
	f.hit("end-settled", err == nil && settled.Outbox)
}

func has(outcomes []task.Outcome, kind task.OutcomeKind) bool {
	return slices.ContainsFunc(outcomes, func(o task.Outcome) bool { return o.Kind == kind })
}

// ClaimDeliveries has "deliveries-claimed", when nothing has been sent yet.
func (f *failing) ClaimDeliveries(ctx context.Context, p store.ClaimDeliveriesParams) (store.ClaimedDeliveries, error) {
	claimed, err := f.Store.ClaimDeliveries(ctx, p)
	f.hit("deliveries-claimed", len(claimed.Deliveries) > 0)
	return claimed, err
}

// FinishDeliveries has "deliveries-sent" before and "deliveries-finished" after the transaction.
func (f *failing) FinishDeliveries(ctx context.Context, attempts []store.Attempt) error {
	f.hit("deliveries-sent", true)
	err := f.Store.FinishDeliveries(ctx, attempts)
	f.hit("deliveries-finished", err == nil)
	return err
}

// Expire has "expired", when the batches are gone and their tasks are not.
func (f *failing) Expire(ctx context.Context, keep time.Duration, limit int) (store.Removed, error) {
	removed, err := f.Store.Expire(ctx, keep, limit)
	f.hit("expired", removed.Batches > 0)
	return removed, err
}

// Purge has "purged", when some tasks of a batch may be deleted and others not.
func (f *failing) Purge(ctx context.Context, limit int) (store.Removed, error) {
	removed, err := f.Store.Purge(ctx, limit)
	f.hit("purged", removed.Tasks > 0)
	return removed, err
}
