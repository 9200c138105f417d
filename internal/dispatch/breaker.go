package dispatch

import (
	"net/http"
	"time"

	"taskrunner/internal/task"
)

const (
	// breakAfter is how many failures in a row open a breaker. It is more than a lone action has by the default policies before
	// it is given up, or rests for longer than forgetAfter: that only follows its own policy.
	breakAfter = 10
	// forgetAfter is how long after a failure the next one is in a row with it.
	forgetAfter = time.Minute
	// The pauses before probes, of which up to half is taken off at random.
	firstProbe = time.Second
	lastProbe  = 10 * time.Second
)

// breaker decides whether requests go to a host. It knows no clock and takes no lock.
//
//	closed ── failures in a row ──▶ open ── pause is over ──▶ half-open
//	   ▲                             ▲                         │ │
//	   │                             └──────── failure ────────┘ │
//	   └──────────────────────── success ────────────────────────┘
type breaker struct {
	state    task.Breaker
	failures int // in a row
	failed   time.Time
	openings int // in a row
	probe    time.Time
	probing  bool // half-open: the one that is let through is out
}

// presence is what an attempt says of the host.
type presence int

const (
	nothingKnown presence = iota // it did not get as far as that
	present
	absent
)

// presenceOf reads it from an attempt's status, or its error when there was no answer. Who answers is there, whatever the
// answer: but 502, 503 and 504 come from those who stand in front of a service that is not. A 429 with Retry-After holds
// for the request that got it.
func presenceOf(status int, err error) presence {
	switch {
	case unsendable(err):
		return nothingKnown
	case err != nil, status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return absent
	}
	return present
}

// admit reports whether a request may go out. If the breaker is half-open then, it is the probe.
func (b *breaker) admit() bool {
	if b.room() == 0 {
		return false
	}
	b.probing = b.state == task.BreakerHalfOpen
	return true
}

// room is how many requests may go out: -1 for any number.
func (b *breaker) room() int {
	switch {
	case b.state == task.BreakerClosed:
		return -1
	case b.state == task.BreakerHalfOpen && !b.probing:
		return 1
	}
	return 0
}

// report takes what a request has come to. random is uniform over all its values.
func (b *breaker) report(p presence, now time.Time, random uint64) {
	switch p {
	case nothingKnown:
		b.probing = false
	case present:
		*b = breaker{}
	case absent:
		if b.state == task.BreakerClosed && now.Sub(b.failed) > forgetAfter {
			b.failures = 0
		}
		b.failures++
		b.failed = now
		// Half-open it opens for anybody, also for one that was sent before it opened: that says the same as the probe would.
		if b.state == task.BreakerHalfOpen || b.state == task.BreakerClosed && b.failures >= breakAfter {
			pause := min(firstProbe<<min(b.openings, 10), lastProbe)
			pause -= time.Duration(random % uint64(pause/2))
			b.state, b.probing, b.probe = task.BreakerOpen, false, now.Add(pause)
			b.openings++
		}
	}
}

// due ends the pause if it is over.
func (b *breaker) due(now time.Time) {
	if b.state == task.BreakerOpen && !now.Before(b.probe) {
		b.state, b.probe = task.BreakerHalfOpen, time.Time{}
	}
}
