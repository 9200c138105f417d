package httpapi

import (
	"context"
	"net/http"
	"time"

	"taskrunner/api"
	"taskrunner/internal/store"
)

// probeTimeout is how long the database has to answer a probe.
const probeTimeout = 2 * time.Second

// health is GET /health.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	h, err := s.probe(r)
	if err != nil {
		return writeJSON(w, http.StatusServiceUnavailable, api.Health{Status: "degraded", Database: "unhealthy"})
	}
	return writeJSON(w, http.StatusOK, api.Health{
		Status: "ok", Database: "healthy", PoolSize: h.PoolSize, PoolIdle: h.PoolIdle,
	})
}

// ready is GET /ready: whether this process should get requests.
func (s *server) ready(w http.ResponseWriter, r *http.Request) error {
	reason := ""
	if err := s.Ready(); err != nil {
		reason = err.Error()
	} else if _, err := s.probe(r); err != nil {
		reason = "the database does not answer"
	}
	if reason != "" {
		return writeJSON(w, http.StatusServiceUnavailable, api.Ready{Status: "not_ready", Reason: reason})
	}
	return writeJSON(w, http.StatusOK, api.Ready{Status: "ready"})
}

func (s *server) probe(r *http.Request) (store.Health, error) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	h, err := s.Store.Health(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "the database does not answer a probe", "route", route(r), "error", err)
	}
	return h, err
}
