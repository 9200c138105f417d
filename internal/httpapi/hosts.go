package httpapi

import (
	"context"
	"net/http"
	"time"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// listHosts is GET /hosts.
func (s *server) listHosts(w http.ResponseWriter, r *http.Request) error {
	states, err := readPage(w, r, hostFilters, 0, s.hosts, func(h *task.HostState, _ store.Sort) string { return h.Name })
	if err != nil {
		return err
	}
	list := make([]api.Host, len(states))
	for i := range states {
		h := &states[i]
		list[i] = api.Host{
			Name: h.Name, Breaker: breaker(h), InFlight: h.InFlight, Queued: h.Queued, Requests: h.Requests, Failed: h.Failed,
		}
		if h.P99 > 0 {
			list[i].Latency = &api.Latency{P50: h.P50.Seconds(), P99: h.P99.Seconds()}
		}
	}
	return writeJSON(w, http.StatusOK, list)
}

// hosts is a page of those that this process knows, after the one in f.
func (s *server) hosts(_ context.Context, f store.Filter) (page store.Page[task.HostState], _ error) {
	if s.Starts != nil {
		page.Items = s.Starts.Hosts(f.Host, f.Limit)
	}
	return page, nil
}

func breaker(h *task.HostState) api.Breaker {
	return api.Breaker{State: h.Breaker.String(), Failures: h.Failures, LastError: orNil(h.LastError), NextProbe: at(h.NextProbe.Truncate(time.Microsecond))}
}
