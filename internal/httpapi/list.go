package httpapi

import (
	"context"
	"maps"
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/store"
)

// listTasks is GET /task.
func (s *server) listTasks(w http.ResponseWriter, r *http.Request) error {
	items, err := readPage(w, r, taskFilters, s.Store.Tasks, func(i *store.Item, sort store.Sort) string {
		return cursor(i.Task.ID, i.State.LastUpdated, sort)
	})
	if err != nil {
		return err
	}
	tasks := make([]api.TaskSummary, len(items))
	for i := range items {
		tasks[i] = summary(&items[i].Task, &items[i].State)
	}
	return writeJSON(w, http.StatusOK, tasks)
}

// listBatches is GET /batches.
func (s *server) listBatches(w http.ResponseWriter, r *http.Request) error {
	items, err := readPage(w, r, batchFilters, s.Store.Batches, func(b *store.BatchItem, _ store.Sort) string {
		return b.ID.String()
	})
	if err != nil {
		return err
	}
	batches := make([]api.BatchSummary, len(items))
	for i := range items {
		b := &items[i]
		batches[i] = api.BatchSummary{
			BatchID: b.ID.String(), Requester: b.Requester, Scope: b.Scope, Metadata: b.Metadata, TotalTasks: b.Tasks, FirstCreatedAt: at(b.CreatedAt), LatestUpdatedAt: at(b.UpdatedAt),
			StatusCounts: statusCounts(b.Counts), Kinds: b.Kinds,
		}
	}
	return writeJSON(w, http.StatusOK, batches)
}

// readPage reads the page of a list that r asks for, and links to the next one: the same filters, continued after the
// last item. A page's number would count twice. One item more than asked for is read, to know whether there is a next.
func readPage[T any](
	w http.ResponseWriter, r *http.Request, filters filters,
	read func(ctx context.Context, f store.Filter) ([]T, error), cursor func(*T, store.Sort) string,
) ([]T, error) {
	l, err := parseList(r.URL.RawQuery, filters)
	if err != nil {
		return nil, err
	}
	size := l.filter.Limit
	l.filter.Limit++
	items, err := read(r.Context(), l.filter)
	if err != nil || len(items) <= size {
		return items, err
	}
	items = items[:size]
	query := maps.Clone(l.known)
	query.Del("page")
	query.Set("cursor", cursor(&items[size-1], l.filter.Sort))
	w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	return items, nil
}
