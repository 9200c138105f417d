// Package storetest is the conformance suite of store.Store: what a driver has to do, as tests that run whole on each.
// A driver's own test opens stores and calls [Run] and [Bench].
//
// Invariants:
//
//   - The suite knows a store only through its interface; what it expects comes from package task or from the
//     specification, never from the plans that the drivers share.
//   - Nothing waits for time to pass: a [Clock] moves on what the store takes for now.
//   - Every test ends with Drift()==0.
package storetest

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"taskrunner/internal/store"
)

// Clock is what a store goes by while it is tested. It runs, and can be moved on. Safe for concurrent use.
type Clock struct{ skew atomic.Int64 }

// Advance moves the clock on by d.
func (c *Clock) Advance(d time.Duration) { c.skew.Add(int64(d)) }

// Skew is how far the clock was moved on, for a store that has a clock of its own.
func (c *Clock) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// Now is the time by this clock, for a store that has none.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Skew()) }

// Open opens a store of its own for a test, migrated and empty, that goes by clock. It is closed when tb ends.
type Open func(tb testing.TB, clock *Clock) store.Store

// conformance is one subtest of the suite.
type conformance struct {
	name string
	run  func(*testing.T, *env)
}

// Run runs the suite. It returns when all of it has run.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		tests []conformance
	}{
		{"create", createTests},
		{"dedupe", dedupeTests},
		{"idempotency", idempotencyTests},
		{"group", groupTests},
		{"life", lifeTests},
		{"history", historyTests},
		{"settle", settleTests},
		{"dependencies", dependencyTests},
		{"dead ends", deadEndTests},
		{"pause", pauseTests},
		{"rules", ruleTests},
		{"tallies", tallyTests},
		{"rule edits", editTests},
		{"waiters", waiterTests},
		{"room", roomTests},
		{"leases", leaseTests},
		{"work", workTests},
		{"follow", followTests},
		{"timeouts", timeoutTests},
		{"deliveries", deliveryTests},
		{"records", recordTests},
		{"complete batches", completeTests},
		{"lists", listTests},
		{"stop", stopTests},
		{"retention", retentionTests},
		{"explain", explainTests},
		{"processes", processTests},
		{"concurrency", concurrencyTests},
		{"model", modelTests},
		{"statements", statementTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.tests {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					e := newEnv(t, open)
					c.run(t, e)
					e.wantNoDrift()
				})
			}
		})
	}
}

// long reports whether the run may take its time.
func long() bool { return os.Getenv("TEST_LONG") != "" }

// size is n, and less where the race detector makes everything many times slower.
func size(n int) int {
	if raceDetector {
		return n / 4
	}
	return n
}

// failer is what the helpers need of a testing.TB; rapid's T is one too.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func newEnv(tb testing.TB, open Open) *env {
	e := &env{failer: tb, ctx: tb.Context(), clock: &Clock{}, owner: newID()}
	e.Store = open(tb, e.clock)
	e.heartbeat(e.owner, time.Hour)
	return e
}

// background is for calls that must not end with the test's context.
func (e *env) background() context.Context { return context.WithoutCancel(e.ctx) }
