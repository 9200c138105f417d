package httpapi

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// listTime is how long the search for one page may hold a connection to the database: some ten million tasks.
const listTime = 10 * time.Second

// listTasks is GET /task.
func (s *server) listTasks(w http.ResponseWriter, r *http.Request) error {
	items, err := readPage(w, r, taskFilters, store.MaxWalk, s.Store.Tasks, func(i *store.Item, sort store.Sort) string {
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
	items, err := readPage(w, r, batchFilters, store.MaxBatchWalk, s.Store.Batches, func(b *store.BatchItem, _ store.Sort) string {
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

var errLongSearch = &failure{
	code: longSearch, message: "the page was not found within " + listTime.String() + "; begin with cursor= and follow Link, or narrow the filter",
}

var errListsBusy = &failure{
	code: unavailable, message: "other lists have taken all places for " + listTime.String() + "; this one was not begun",
}

// readPage reads the page of a list that r asks for, and links to the next one: the same filters, continued after the
// last item, or where the walk over what it does not show ended. A page's number would count twice. One item more than asked
// for is read, to know whether there is a next.
func readPage[T any](
	w http.ResponseWriter, r *http.Request, filters filters, walk int,
	read func(ctx context.Context, f store.Filter) (store.Page[T], error), cursor func(*T, store.Sort) string,
) ([]T, error) {
	l, err := parseList(r.URL.RawQuery, filters)
	if err != nil {
		return nil, err
	}
	size := l.filter.Limit
	l.filter.Limit++
	if l.linked {
		l.filter.Walk = walk
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTime)
	defer cancel()
	page, err := read(ctx, l.filter)
	items := page.Items
	query := maps.Clone(l.known)
	switch {
	case err != nil && !errors.Is(err, store.ErrListsBusy) && ctx.Err() != nil && r.Context().Err() == nil:
		return nil, errLongSearch
	case err != nil:
		return nil, err
	case len(items) > size:
		items = items[:size]
		query.Set("cursor", cursor(&items[size-1], l.filter.Sort))
	case page.Walked != task.ID{}:
		query.Set("cursor", page.Walked.String())
	default:
		return items, nil
	}
	query.Del("page")
	w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	return items, nil
}
