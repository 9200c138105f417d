package httpapi

import (
	"maps"
	"net/http"
	"net/url"

	"taskrunner/api"
	"taskrunner/internal/store"
)

// listTasks is GET /task. One task more than asked for is read, to know whether there is a next page.
func (s *server) listTasks(w http.ResponseWriter, r *http.Request) error {
	l, err := parseList(r.URL.RawQuery)
	if err != nil {
		return err
	}
	size := l.filter.Limit
	l.filter.Limit++
	items, err := s.Store.Tasks(r.Context(), l.filter)
	if err != nil {
		return err
	}
	if len(items) > size {
		items = items[:size]
		w.Header().Set("Link", "<"+nextURL(r.URL, l.known, &items[size-1])+`>; rel="next"`)
	}
	tasks := make([]api.TaskSummary, len(items))
	for i := range items {
		tasks[i] = summary(&items[i].Task, &items[i].State)
	}
	return writeJSON(w, http.StatusOK, tasks)
}

// nextURL is the path with the filters of this page, continued after last. A page's number would count twice.
func nextURL(u *url.URL, known url.Values, last *store.Item) string {
	query := maps.Clone(known)
	query.Del("page")
	query.Set("cursor", last.Task.ID.String())
	return u.EscapedPath() + "?" + query.Encode()
}
