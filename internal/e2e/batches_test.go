package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"taskrunner/api"
)

// batches is a page of GET /batches.
func (c *client) batches(query string) []api.BatchSummary {
	c.t.Helper()
	return decode[[]api.BatchSummary](c.t, c.want(200, "GET", "/batches?"+query, nil))
}

func TestBatches(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		names := map[string]string{}
		var created []time.Time
		create := func(name string, tasks ...obj) map[string]api.Task {
			byLocal, id := s.create(tasks)
			names[id] = name
			created = append(created, s.batch(id).CreatedAt.Time)
			return byLocal
		}
		old := create("old", r.newTask("a", "/run", obj{"kind": "ingest", "name": "Import 1"}))
		mixed := create("mixed",
			r.newTask("a", "/run", obj{"kind": "ingest", "name": "Import 2"}),
			r.newTask("b", "/run", obj{"kind": "report", "name": "Report", "dependencies": []obj{dep("a", true)}}),
			r.newTask("c", "/run", obj{"kind": "report", "name": "Report"}))
		held := create("held",
			r.newTask("a", "/run", obj{"kind": "export", "name": "Export", "rules": []obj{limit("export", 1)}}),
			r.newTask("b", "/run", obj{"kind": "export", "name": "Export", "rules": []obj{limit("export", 1)}}))
		for _, task := range []api.Task{old["a"], mixed["a"], mixed["c"], held["a"]} {
			s.waitStatus(task.ID, "Running")
		}
		s.finish(old["a"].ID, "Success")
		s.want(200, "DELETE", "/task/"+mixed["c"].ID, nil)

		at := func(i int) string { return escape(created[i].Format(time.RFC3339Nano)) }
		for _, c := range []struct{ query, want string }{ // newest first
			{"", "held mixed old"}, {"kind=ingest", "mixed old"}, {"kind=report", "mixed"}, {"kind=Report", ""}, {"kind=re", ""}, {"kind=re*", "mixed"},
			{"name=port", "held mixed old"}, {"name=Import", "mixed old"}, {"name=" + escape("%"), ""},
			{"status=Success", "old"}, {"status=Running", "held mixed"}, {"status=Pending", "held"}, {"status=Waiting", "mixed"}, {"status=Canceled", "mixed"},
			{"status=Claimed", ""}, {"status=Paused,Failure", ""}, {"status=Success,Waiting", "mixed old"},
			{"kind=report&status=Running", ""}, {"kind=ingest&status=Running&name=2", "mixed"},
			{"created_after=" + at(0), "held mixed"}, {"created_before=" + at(2), "mixed old"}, {"created_after=" + at(0) + "&created_before=" + at(2), "mixed"},
			{"created_after=2999-01-01T00:00:00Z", ""}, {"created_before=1999-01-01T00:00:00%2B01:00", ""}, {"kind=ingest&created_after=" + at(0), "mixed"},
			{"page_size=2", "held mixed"}, {"per_page=2&page=1", "old"}, {"page=9", ""}, {"per_page=0", "held"}, {"batch_id=x&unknown=1", "held mixed old"},
		} {
			var got []string
			for _, b := range s.batches(c.query) {
				got = append(got, names[b.BatchID])
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %s\nwant %s", c.query, strings.Join(got, " "), c.want)
			}
		}
		for query, want := range map[string]string{"created_after=" + at(1): "export Export export Export", "created_before=" + at(1): "ingest Import 1"} {
			var got []string
			for _, task := range s.list(query) {
				got = append(got, task.Kind+" "+task.Name)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("GET /task?%s: %v, want %s", query, got, want)
			}
		}
		got := s.batches("kind=report")[0] // all of its tasks, whatever the filter
		if got.TotalTasks != 3 || got.StatusCounts != (api.StatusCounts{Waiting: 1, Running: 1, Canceled: 1}) ||
			!slices.Equal(got.Kinds, []string{"ingest", "report"}) || !got.FirstCreatedAt.Equal(created[1]) ||
			!got.LatestUpdatedAt.Equal(s.task(mixed["c"].ID).LastUpdated.Time) {
			t.Errorf("batch %s", jsonOf(got))
		}
		for _, path := range []string{"/batches?created_after=soon", "/batches?status=nope", "/task?created_before=1"} {
			s.want(400, "GET", path, nil)
		}
	})
}

// TestBatchCursor: walking along the links shows every batch exactly once, also while others are created.
func TestBatchCursor(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		var want, got []string
		for i := range 15 {
			_, id := s.create([]obj{r.newTask("a", "/run", obj{"kind": []string{"walk", "other"}[i%2]})})
			if i%2 == 0 {
				want = append(want, id)
			}
		}
		slices.Reverse(want)
		for path := "/batches?kind=walk&page_size=3&page=0"; path != ""; {
			a := s.want(200, "GET", path, nil)
			for _, b := range decode[[]api.BatchSummary](t, a) {
				got = append(got, b.BatchID)
			}
			s.create([]obj{r.newTask("later", "/run", obj{"kind": "walk"})})
			path = next(t, a)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("walked over %d batches, want %d\n%v\n%v", len(got), len(want), got, want)
		}
	})
}
