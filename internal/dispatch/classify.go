package dispatch

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"taskrunner/internal/task"
)

// Verdict is what an attempt comes to.
type Verdict int

const (
	// Done is accepted.
	Done Verdict = iota + 1
	// Retry is worth it: it may work later.
	Retry
	// GiveUp is for what would fail again.
	GiveUp
)

// errUnusable: an action from which no request can be made.
var errUnusable = errors.New("the action is not usable")

// unsendable: what err says would be so again, and nothing has gone out.
func unsendable(err error) bool { return refused(err) || errors.Is(err, errUnusable) }

// Classify judges an attempt by the answer's status, or by the error when there was no answer.
// 2xx is accepted. 5xx, 408, 425 and 429 pass with time, and so may everything that goes wrong on the network. The rest
// is given up: 3xx (redirects are not followed), other 4xx, and what the guard refuses.
func Classify(status int, err error) Verdict {
	switch {
	case unsendable(err):
		return GiveUp
	case err != nil:
		return Retry
	case status >= 200 && status <= 299:
		return Done
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests:
		return Retry
	}
	return GiveUp
}

func refused(err error) bool {
	_, ok := errors.AsType[*refusedError](err)
	return ok
}

const (
	// minPause is how long a retry waits at least, unless its policy does not let it wait that long.
	minPause = 100 * time.Millisecond
	// maxRetryAfter and maxStartRetryAfter bound what a receiver may ask for, of an on_start less: its task keeps its
	// slots, and its place in the windows. A policy with longer pauses lets the receiver ask for as much.
	maxRetryAfter      = 24 * time.Hour
	maxStartRetryAfter = 30 * time.Second
	// startWithin is how long after the first attempt the last one of an on_start may begin, whatever its policy: a task
	// that cannot be started gives its slots back within the hour.
	startWithin = time.Hour
)

// policy says how often and when an action is sent again.
type policy struct {
	task.Retry    // without anything left out
	maxRetryAfter time.Duration
	within        time.Duration // of the first attempt; 0: no bound
}

// policy is that of an action: its own, and what it leaves out as the server has it.
func (d *Dispatcher) policy(c *call) policy {
	if c.trigger == task.TriggerStart {
		return newPolicy(c.action.Retry.Or(d.startRetry), maxStartRetryAfter, startWithin)
	}
	return newPolicy(c.action.Retry.Or(d.retry), maxRetryAfter, 0)
}

func newPolicy(r task.Retry, retryAfter, within time.Duration) policy {
	return policy{Retry: r, maxRetryAfter: max(retryAfter, r.Max), within: within}
}

// ceiling is how long the pause after that many failures may be: exponential, up to Max.
func (p *policy) ceiling(failures int) time.Duration {
	d := float64(p.Initial) * math.Pow(p.Factor, float64(failures-1))
	if d >= float64(p.Max) {
		return p.Max
	}
	return time.Duration(d)
}

// failed is what an attempt that should be repeated came to.
type failed struct {
	failures   int           // with this one
	since      time.Duration // the first attempt began
	retryAfter time.Duration // that the receiver asked for; 0: none
}

// pause is how long to wait before the next attempt: anything from minPause to the ceiling (full jitter: what failed
// together does not come back together), or what the receiver asked for if that is longer. It is false when there is no
// further attempt. random is uniform over all its values.
func (p *policy) pause(f failed, random uint64) (time.Duration, bool) {
	if f.failures >= p.MaxAttempts {
		return 0, false
	}
	ceiling := p.ceiling(f.failures)
	least := min(minPause, ceiling)
	d := max(least+time.Duration(random%uint64(ceiling-least+1)), min(f.retryAfter, p.maxRetryAfter))
	if p.within > 0 && f.since+d > p.within {
		return 0, false
	}
	return d, true
}

// parseRetryAfter reads the header of that name: seconds, or an HTTP date. What is neither, or past, is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
