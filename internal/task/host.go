package task

import "time"

// Breaker says whether requests go to a host.
type Breaker int

const (
	// BreakerClosed lets everything through.
	BreakerClosed Breaker = iota
	// BreakerOpen lets nothing through: the host was not there many times in a row.
	BreakerOpen
	// BreakerHalfOpen lets one request through at a time, to see whether the host is there again.
	BreakerHalfOpen
)

func (b Breaker) String() string { return [...]string{"closed", "open", "half-open"}[b] }

// HostState is how a host that webhooks go to stands, as far as one process knows.
type HostState struct {
	Name    string
	Breaker Breaker
	// InFlight requests are on their way to it; Queued ones are claimed and wait for a place, for another attempt or for
	// the breaker.
	InFlight, Queued int
	// Failures counts the requests in a row for which the host was not there; Failed is how many of all Requests came to
	// that.
	Failures         int
	Requests, Failed uint64
	LastError        string // of the last one of those
	// P50 and P99 are of the last requests that were answered.
	P50, P99 time.Duration
	// NextProbe is when a request is let through again; zero unless the breaker is open.
	NextProbe time.Time
}
