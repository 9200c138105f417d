package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Starts is what only the process that sends on_start knows of it. Safe for concurrent use.
type Starts interface {
	// Room is how much more may be sent now.
	Room() task.Room
	// Failing counts the requests of a task's on_start that have failed so far, with the last status and error; zero when
	// there is none, or when another process sends them.
	Failing(id task.ID) (failures, status int, text string)
	// Host is how a host stands.
	Host(name string) task.HostState
	// Hosts are those that are remembered, by name, up to limit of them after a name.
	Hosts(after string, limit int) []task.HostState
}

// explainTask is GET /task/{id}/explain.
func (s *server) explainTask(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	situation, err := s.Store.Explain(r.Context(), id)
	if err != nil {
		return missing(err, "task", id)
	}
	why := why{Situation: situation}
	if s.Starts != nil {
		why.room = s.Starts.Room()
		why.failures, why.lastStatus, why.lastError = s.Starts.Failing(id)
		why.target = s.Starts.Host(why.host())
	}
	return writeJSON(w, http.StatusOK, why.explanation())
}

// listLimits is GET /limits.
func (s *server) listLimits(w http.ResponseWriter, r *http.Request) error {
	f, known, err := parseLimits(r.URL.RawQuery)
	if err != nil {
		return err
	}
	limits, err := s.Store.Limits(r.Context(), f)
	if err != nil {
		return err
	}
	if limits.Next != nil {
		known.Set("cursor", strconv.FormatInt(int64(*limits.Next), 10))
		w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+known.Encode()+`>; rel="next"`)
	}
	list := make([]api.Limit, len(limits.Gates))
	for i := range limits.Gates {
		list[i] = limit(&limits.Gates[i])
	}
	return writeJSON(w, http.StatusOK, list)
}

// parseLimits reads the query of GET /limits, with the parameters that it knows.
func parseLimits(rawQuery string) (store.LimitFilter, url.Values, error) {
	f := store.LimitFilter{After: store.FirstGate, Limit: defaultPage}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return f, nil, invalidf("the query is not well-formed")
	}
	known := url.Values{}
	wrong := &failure{code: invalid}
	for _, name := range []string{"cursor", "kind", "page_size", "per_page"} { // per_page overrides
		value := query.Get(name)
		if value == "" {
			continue
		}
		known.Set(name, value)
		reason := ""
		if len(query[name]) > 1 {
			reason = "stands more than once"
		} else {
			reason = filterLimits(&f, name, value)
		}
		if reason != "" {
			wrong.details = append(wrong.details, name+": "+reason)
		}
	}
	if len(wrong.details) > 0 {
		return f, nil, wrong
	}
	return f, known, nil
}

// filterLimits reads a parameter into f, or returns what is wrong with it.
func filterLimits(f *store.LimitFilter, name, value string) (reason string) {
	switch name {
	case "cursor":
		id, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return jsonread.Quote(value) + " is not one that Link gave"
		}
		f.After = task.GateID(id)
	case "kind":
		var kind store.Filter
		reason = filterKind(&kind, []string{value})
		f.Kind, f.KindPrefix = kind.Kind, kind.KindPrefix
	default:
		size, ok := clamped(value, 1, maxPage)
		if !ok {
			return "must be a whole number, is " + jsonread.Quote(value)
		}
		f.Limit = size
	}
	return reason
}

func limit(g *store.LimitSituation) api.Limit {
	l := api.Limit{
		ID: strconv.FormatInt(int64(g.ID), 10), Gate: gate(&g.Shape, g.Values),
		Waiting: min(g.Waiting, store.MaxAhead), WaitingMore: g.Waiting > store.MaxAhead,
	}
	l.Used, l.Load = usage(&g.Shape, g.Used)
	for _, lane := range g.Lanes {
		most := lane.Limit()
		if lane < 0 {
			most--
		}
		if g.Waiting > 0 && (l.Max == nil || most < *l.Max) {
			l.Max = &most
		}
	}
	return l
}

func gate(s *task.Shape, values string) api.Gate {
	fields := s.Fields
	if fields == nil {
		fields = []string{}
	}
	g := api.Gate{
		Type: s.Type.String(), Kind: s.Kind, Status: s.Status.String(), Fields: fields, Values: map[string]json.RawMessage{},
	}
	for i, value := range jsonread.Root([]byte(values)).Elements {
		g.Values[fields[i]] = value.Raw()
	}
	return g
}

// usage is how much of a gate is used, as one or the other.
func usage(s *task.Shape, n int) (used, load *int) {
	if s.Type == task.Capacity {
		return nil, &n
	}
	return &n, nil
}
