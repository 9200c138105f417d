package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/task"
)

// listHosts is GET /hosts.
func (s *server) listHosts(w http.ResponseWriter, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidf("the query is not well-formed")
	}
	size := defaultPage
	for _, name := range []string{"page_size", "per_page"} { // per_page overrides
		if value := query.Get(name); value != "" {
			n, ok := clamped(value, 1, maxPage)
			if !ok {
				return invalidf("%s: must be a whole number, is %s", name, jsonread.Quote(value))
			}
			size = n
		}
	}
	var states []task.HostState
	if s.Starts != nil {
		states = s.Starts.Hosts(query.Get("cursor"), size+1)
	}
	if len(states) > size {
		states = states[:size]
		next := url.Values{"cursor": {states[size-1].Name}, "page_size": {strconv.Itoa(size)}}
		w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+next.Encode()+`>; rel="next"`)
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

func breaker(h *task.HostState) api.Breaker {
	return api.Breaker{State: h.Breaker.String(), Failures: h.Failures, LastError: orNil(h.LastError), NextProbe: at(h.NextProbe.Truncate(time.Microsecond))}
}
