package api

// Host is how a host that webhooks go to stands, as far as the process knows that was asked: each replica has its own
// requests, windows and breakers.
type Host struct {
	// Name is the host and port of the URLs.
	Name    string  `json:"name"`
	Breaker Breaker `json:"breaker"`
	// InFlight requests are on their way to it. Queued ones are claimed and wait for a place, for another attempt or for the
	// breaker; what waits in the database is not among them.
	InFlight int `json:"in_flight"`
	Queued   int `json:"queued"`
	// Requests counts those that were made since the host is remembered; for Failed of them the host was not there.
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"`
	// Latency is that of the last 128 requests that were answered; null where there is none.
	Latency *Latency `json:"latency"`
}

// Latency is in seconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Breaker says whether requests go to a host.
type Breaker struct {
	// State is closed; open, when nothing goes to it; or half-open, when one request at a time tries whether it is there.
	State string `json:"state"`
	// Failures counts the requests in a row for which it was not there: it could not be reached, did not answer in time, or
	// 502, 503 or 504 came.
	Failures int `json:"failures"`
	// LastError is that of the last one of those.
	LastError *string `json:"last_error"`
	// NextProbe is when the next request is let through; null unless it is open.
	NextProbe Time `json:"next_probe"`
}
