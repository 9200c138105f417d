package dispatch

import (
	"errors"
	"net/http"
	"strconv"
	"time"
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

// Classify judges an attempt by the answer's status, or by the error when there was no answer.
// 2xx is accepted. 5xx, 408, 425 and 429 pass with time, and so may everything that goes wrong on the network. The rest
// is given up: 3xx (redirects are not followed), other 4xx, and what the guard refuses.
func Classify(status int, err error) Verdict {
	switch {
	case err != nil && (refused(err) || errors.Is(err, errUnusable)):
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

// policy says how often and when an action is sent again.
type policy struct {
	attempts int
	// first is the pause after the first failure; each further one is factor times as long.
	first  time.Duration
	factor int
	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter time.Duration
}

var (
	// startPolicy: three attempts within about 3 s. The claim keeps its place in the windows and its slots meanwhile,
	// so a receiver cannot ask for much more.
	startPolicy = policy{attempts: 3, first: time.Second, factor: 2, maxRetryAfter: 30 * time.Second}
	// outboxPolicy: ten attempts; the nine pauses of 1 s, 4 s, 16 s … 18 h make a day.
	outboxPolicy = policy{attempts: 10, first: time.Second, factor: 4, maxRetryAfter: 24 * time.Hour}
)

// pause is how long to wait after that many failures: the policy's pause give or take a quarter, or what the receiver
// asked for if that is longer. It is false when the attempts are used up. random is uniform over all its values.
func (p *policy) pause(failures int, retryAfter time.Duration, random uint64) (time.Duration, bool) {
	if failures >= p.attempts {
		return 0, false
	}
	d := p.first
	for range failures - 1 {
		d *= time.Duration(p.factor)
	}
	d = d*3/4 + time.Duration(random%uint64(d/2+1))
	return max(d, min(retryAfter, p.maxRetryAfter)), true
}

// parseRetryAfter reads the header of that name: seconds, or an HTTP date. What is neither, or past, is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(outboxPolicy.maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
