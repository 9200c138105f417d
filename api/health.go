package api

// Health answers GET /health.
type Health struct {
	// Status is ok, or degraded with HTTP status 503.
	Status string `json:"status"`
	// Database is healthy or unhealthy.
	Database string `json:"database"`
	// PoolSize counts the connections to the database, PoolIdle those not in use.
	PoolSize int `json:"pool_size"`
	PoolIdle int `json:"pool_idle"`
}

// Ready answers GET /ready.
type Ready struct {
	// Status is ready, or not_ready with HTTP status 503.
	Status string `json:"status"`
	// Reason says why it is not; left out otherwise.
	Reason string `json:"reason,omitempty"`
}
