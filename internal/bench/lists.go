package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"taskrunner/api"
)

// listed is a list to ask for.
type listed struct {
	query, value string                      // the value is not shown
	some         bool                        // it is not empty
	holds        func(*api.TaskSummary) bool // of each task; nil: anything
}

func ofStatus(status string) listed {
	return listed{query: "status=" + status, some: true, holds: func(t *api.TaskSummary) bool { return t.Status == status }}
}

// lists asks for every list of a million tasks: its first page, one far behind by its number, and one by its cursor.
func lists(ctx context.Context, r *run) error {
	n := r.count(1_000_000, 1500)
	loads, err := r.million(ctx, n)
	if err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	kind := func(t *api.TaskSummary) bool { return t.Kind == "finished7" }
	middle := url.QueryEscape(time.Now().Add(-time.Minute).UTC().Format(time.RFC3339))
	for _, l := range []listed{
		{query: "", some: true},
		ofStatus("Success"), ofStatus("Failure"), ofStatus("Waiting"), ofStatus("Running"), ofStatus("Pending"),
		{query: "status=Paused"}, {query: "status=Canceled"},
		{query: "status=Failure&kind=finished4"},
		{query: "kind=finished7", some: true, holds: kind},
		{query: "kind=nothing"}, {query: "kind=nothing*"},
		{query: "kind=finished1*", some: true, holds: func(t *api.TaskSummary) bool { return strings.HasPrefix(t.Kind, "finished1") }},
		{query: "name=7", some: true, holds: func(t *api.TaskSummary) bool { return strings.Contains(t.Name, "7") }},
		{query: "name=nothing"},
		{query: "created_before=", value: middle}, {query: "created_after=", value: middle},
		{query: "batch_id=", value: loads[0].batches[0], some: true, holds: func(t *api.TaskSummary) bool { return t.BatchID == loads[0].batches[0] }},
		{query: "metadata=" + url.QueryEscape(`{"tenant":7}`), some: true}, {query: "metadata=" + url.QueryEscape(`{"tenant":99}`)},
		{query: "metadata=" + url.QueryEscape(`{"tenant":7}`) + "&kind=finished7"},
		{query: "timeout=86400", some: true}, {query: "timeout=77"},
	} {
		if err := r.list(ctx, l, n); err != nil {
			return err
		}
	}
	slowest := slices.MaxFunc(r.figures, func(a, b Figure) int { return cmp.Compare(a.Value, b.Value) })
	slowest.Name = "the slowest of all"
	r.figures = slices.Insert(r.figures, 0, slowest)
	for _, l := range loads[1:] {
		err = errors.Join(err, r.cancel(ctx, l), r.check(ctx, l))
	}
	return errors.Join(err, r.check(ctx, loads[0]))
}

// million makes n tasks in all states: most have succeeded, one in a thousand failed, and one in a hundred each waits and is
// parked.
func (r *run) million(ctx context.Context, n int) ([]*load, error) {
	others := n / 100
	n -= 2 * others
	done := r.receiver.newLoad(&load{
		kind: "finished", tasks: n, perPost: perStore, clients: 2,
		expect: &api.StatusCounts{Success: n - (n+999)/1000, Failure: (n + 999) / 1000},
		spec: func(task int) spec {
			return spec{kind: strconv.Itoa(task % 20), metadata: fmt.Sprintf(`"tenant":%d,"run":%d,"n":%d`, task%50, task/1000, task)}
		},
		work: func(l *load, task int, handle string) {
			if task%1000 == 0 {
				l.send(task, handle, failure)
				return
			}
			l.succeed(task, handle)
		},
	})
	if _, err := r.whole(ctx, done); err != nil {
		return nil, err
	}
	waiting, err := r.waiting(ctx, others)
	if err != nil {
		return nil, err
	}
	parked, err := r.parked(ctx, others)
	return []*load{done, waiting, parked}, err
}

// list asks for one list at its depths.
func (r *run) list(ctx context.Context, l listed, n int) error {
	const perPage = 50
	path := "/task?" + l.query + l.value
	if _, err := r.page(ctx, l, path, "first page"); err != nil {
		return err
	}
	deep := fmt.Sprintf("%s&page=%d", path, n/2/perPage)
	l.some = false // it may be shorter
	next, err := r.page(ctx, l, deep, "deep page")
	if err != nil || next == "" {
		return err
	}
	_, err = r.page(ctx, l, next, "cursor")
	return err
}

// page asks for a page again and again, less often where that takes long. It returns the target of its link.
func (r *run) page(ctx context.Context, l listed, path, depth string) (next string, err error) {
	took := newLatencies()
	const longest = 3 * time.Second
	for i, first := 0, time.Now(); i < r.count(100, 3) && time.Since(first) < longest; i++ {
		var tasks []api.TaskSummary
		next = ""
		begun := time.Now()
		if err := r.do(ctx, request{method: http.MethodGet, path: path, want: http.StatusOK, into: &tasks, next: &next}); err != nil {
			return "", err
		}
		took.record(time.Since(begun))
		if len(tasks) == 0 && l.some {
			return "", fmt.Errorf("GET %s: nothing", path)
		}
		for i := range tasks {
			if l.holds != nil && !l.holds(&tasks[i]) {
				return "", fmt.Errorf("GET %s: task %s is %s, of kind %s", path, tasks[i].ID, tasks[i].Status, tasks[i].Kind)
			}
		}
	}
	readable, err := url.QueryUnescape(l.query)
	if err != nil {
		return "", err
	}
	r.figure(Figure{Name: fmt.Sprintf("p99 of GET /task?%s, %s", readable, depth), Unit: "ms", Value: millis(took.snapshot(), 99), floor: floor.p99})
	return next, nil
}
