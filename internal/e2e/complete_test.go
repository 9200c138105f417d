package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
)

// completed is the body that tells of a batch.
type completed struct {
	BatchID string `json:"batch_id"`
	Counts  struct {
		Success  int `json:"success"`
		Failure  int `json:"failure"`
		Canceled int `json:"canceled"`
	} `json:"counts"`
	CompletedAt api.Time `json:"completed_at"`
	Note        string   `json:"note"`
}

// completedAt is when the last task of a batch ended.
func (c *client) completedAt(batch string) time.Time {
	c.t.Helper()
	var last time.Time
	for _, k := range decode[api.DAG](c.t, c.want(200, "GET", "/dag/"+batch, nil)).Tasks {
		if k.EndedAt.After(last) {
			last = k.EndedAt.Time
		}
	}
	return last
}

// checkCompleted compares what a call says of a batch with what is there.
func (c *client) checkCompleted(batch string, got call) {
	c.t.Helper()
	var said completed
	if err := json.Unmarshal(got.Body, &said); err != nil {
		c.t.Fatalf("%v: %s", err, got.Body)
	}
	counts, at := c.batch(batch).StatusCounts, c.completedAt(batch)
	if said.BatchID != batch || said.Counts.Success != counts.Success || said.Counts.Failure != counts.Failure ||
		said.Counts.Canceled != counts.Canceled || !said.CompletedAt.Equal(at) {
		c.t.Errorf("the batch is said to be %s; it is %s, has %s and ended at %v", got.Body, batch, jsonOf(counts), at)
	}
	if got.Header.Get("X-Batch-Id") != batch || got.Trigger != "batch" || got.Task != "" || got.Handle != "" {
		c.t.Errorf("a call of a batch with %v and query %q", got.Header, got.Query)
	}
}

// Many tasks end at once, by their workers, by cascades and by cancels, and the batch tells it once, and not before.
func TestBatchIsComplete(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		const n = 120
		hold, release := r.hold(r.worker(0, "Success"))
		r.handle("/run", hold)
		fail, releaseToo := r.hold(r.worker(0, "Failure"))
		r.handle("/fail", fail)
		var early atomic.Int32
		r.handle("/done", func(_ http.ResponseWriter, c call) {
			counts := s.batch(c.Header.Get("X-Batch-Id")).StatusCounts
			if counts.Success+counts.Failure+counts.Canceled != n {
				early.Add(1)
			}
		})
		var tasks []obj
		for i := range n {
			id := fmt.Sprint(i)
			switch i % 6 {
			case 1:
				tasks = append(tasks, r.newTask(id, "/fail", nil))
			case 2:
				tasks = append(tasks, r.newTask(id, "/run", obj{"dependencies": []obj{dep(fmt.Sprint(i-1), true)}}))
			case 3:
				tasks = append(tasks, r.newTask(id, "/run", obj{"dependencies": []obj{dep(fmt.Sprint(i-2), false), dep(fmt.Sprint(i-3), true)}}))
			default:
				tasks = append(tasks, r.newTask(id, "/run", nil))
			}
		}
		done := r.hook("/done")
		done["params"].(obj)["body"] = obj{"note": "mine", "counts": "theirs"}
		other := r.hook("/other?a=1")
		created, batch := s.create(obj{"tasks": tasks, "on_batch_complete": []obj{done, other}})
		r.wait(n/6*4, "on_starts are out", sent("start"))
		s.want(200, "DELETE", "/task/"+created["4"].ID, nil)
		release()
		releaseToo()
		first := r.wait(1, "the batch is complete", to("/done"))[0]
		second := r.wait(1, "the other action", to("/other"))[0]
		s.checkCompleted(batch, first)
		s.checkCompleted(batch, second)
		if counts := s.batch(batch).StatusCounts; counts != (api.StatusCounts{Success: n/6*4 - 1, Failure: n / 6 * 2, Canceled: 1}) {
			t.Errorf("counts %+v", counts)
		}
		if first.Key != "batch:"+batch+":complete" || second.Key != first.Key+":1" || second.Query != "a=1" || !strings.Contains(string(first.Body), `"note":"mine"`) {
			t.Errorf("keys %s and %s, query %q, body %s", first.Key, second.Key, second.Query, first.Body)
		}
		if early.Load() > 0 {
			t.Error("a batch is said to be complete and has tasks that have not ended")
		}

		// A stopped one, whose call says at the same time that nothing more is on its way for the first.
		_, stopped := s.create(obj{"tasks": []obj{
			r.newTask("a", "/held", obj{"rules": []obj{limit("held", 1)}, "kind": "held"}), r.newTask("b", "/held", obj{"dependencies": []obj{dep("a", true)}}),
		}, "on_batch_complete": []obj{r.hook("/stopped")}})
		s.want(200, "DELETE", "/batch/"+stopped, nil)
		s.checkCompleted(stopped, r.wait(1, "the stopped batch is complete", to("/stopped"))[0])
		if n := len(r.got(sent("batch"))); n != 3 {
			t.Errorf("%d calls for batches, want 3", n)
		}
		s.checkDrift()
	})
}

// What is done when the service is killed: the ends of the last tasks are acknowledged, and calls are on their way.
func TestKilledProcessCompletesBatches(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		const batches, size = 6, 30
		r := newReceiver(t)
		hold, release := r.hold(nil) // calls before the crash get no answer
		r.handle("/done", hold)
		p := startProcess(t, databaseURL(t, db), nil)
		var ids []string
		var updates [][]obj
		for range batches {
			var tasks []obj
			for i := range size {
				tasks = append(tasks, r.newTask(fmt.Sprint(i), "/run", nil))
			}
			created, id := p.create(obj{"tasks": tasks, "on_batch_complete": []obj{r.hook("/done")}})
			ids = append(ids, id)
			var ends []obj
			for _, k := range created {
				ends = append(ends, obj{"id": k.ID, "status": "Success"})
			}
			updates = append(updates, ends)
		}
		for _, id := range ids {
			eventually(t, "all are running", func() bool { return p.batch(id).StatusCounts.Running == size })
		}
		for i, ends := range updates {
			p.want(200, http.MethodPatch, "/task", ends)
			if i == 0 {
				r.wait(1, "a call is on its way", to("/done"))
			}
		}
		p.kill()
		before := len(r.got(to("/done")))
		release()
		p.start()
		for _, id := range ids {
			mine := func(c call) bool { return c.Header.Get("X-Batch-Id") == id }
			eventually(t, "batch "+id+" has told its end", func() bool {
				b := p.batch(id)
				return len(b.Actions) == 1 && b.Actions[0].LastStatus != nil && *b.Actions[0].LastStatus == 200
			})
			calls := r.got(mine)
			for _, c := range calls {
				if c.Key != "batch:"+id+":complete" {
					t.Errorf("key %s of batch %s", c.Key, id)
				}
				if diff := cmp.Diff(string(calls[0].Body), string(c.Body)); diff != "" {
					t.Errorf("told otherwise the second time: %s", diff)
				}
			}
			p.checkCompleted(id, calls[0])
		}
		t.Logf("%d calls, %d of them before the crash", len(r.got(to("/done"))), before)
	})
}

func TestBatchActionsAreShown(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.worker(0, "Success"))
		r.handle("/gone", answers(http.StatusGone))
		body := jsonOf(obj{"tasks": []obj{r.newTask("a", "/run", nil)}, "on_batch_complete": []obj{r.hook("/done"), r.hook("/gone")}})
		first := s.post(http.StatusCreated, "key", body, "X-Requester", "me")
		batch := first.header.Get("X-Batch-ID")
		eventually(t, "both actions are sent", func() bool {
			actions := s.batch(batch).Actions
			return len(actions) == 2 && actions[0].LastStatus != nil && actions[1].LastStatus != nil
		})
		b := s.batch(batch)
		want := []api.Action{
			{Kind: "Webhook", Trigger: "Batch", Params: api.Params{URL: r.url + "/done", Verb: "Post"}, ID: b.Actions[0].ID, State: new("done"), LastStatus: new(200)},
			{Kind: "Webhook", Trigger: "Batch", Params: api.Params{URL: r.url + "/gone", Verb: "Post"}, ID: b.Actions[1].ID, State: new("dead"), Failures: 1, LastStatus: new(410), LastError: new("410 Gone")},
		}
		for i, a := range b.Actions {
			if a.ID == nil || decode[api.Delivery](t, s.want(http.StatusOK, http.MethodGet, "/deliveries/"+*a.ID, nil)).State != *want[i].State {
				t.Errorf("delivery of %s", jsonOf(a))
			}
		}
		if diff := cmp.Diff(want, b.Actions); diff != "" || b.Requester != "me" || string(b.Metadata) != "{}" || b.Scope != "" {
			t.Errorf("%s\n%s", diff, jsonOf(b))
		}
		again := s.post(http.StatusOK, "key", body)
		if tasks := decode[[]api.Task](t, again); again.header.Get("X-Batch-ID") != batch || len(tasks) != 1 || tasks[0].Status != "Success" {
			t.Errorf("%v %s", again.header, again.body)
		}
		if n := len(r.got(sent("batch"))); n != 2 {
			t.Errorf("%d calls for the batch", n)
		}
		if text := string(s.want(200, "GET", "/metrics", nil).body); !strings.Contains(text, `deliveries_dead_total{trigger="batch"} 1`) {
			t.Error("the dead action is not counted")
		}
	})
}

func TestBatchesByScopeAndMetadata(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		names := map[string]string{}
		for _, b := range []struct {
			name, scope string
			metadata    obj
			kind        string
		}{
			{"a", "nightly", obj{"run": 17, "by": []string{"x", "y"}}, "load"}, {"b", "nightly", obj{"run": 18}, "load"},
			{"c", "hourly", obj{"run": 17}, "load"}, {"d", "", nil, "load"}, {"e", "nightly", nil, "report"},
		} {
			body := obj{"tasks": []obj{r.newTask("t", "/run", obj{"kind": b.kind, "metadata": obj{"run": 99}})}}
			if b.scope != "" {
				body["scope"] = b.scope
			}
			if b.metadata != nil {
				body["metadata"] = b.metadata
			}
			_, id := s.create(body)
			names[id] = b.name
		}
		_, array := s.create([]obj{r.newTask("t", "/run", nil)})
		names[array] = "array"
		for query, want := range map[string]string{
			"": "array e d c b a", "scope=nightly": "e b a", "scope=night": "", "scope=Nightly": "", "scope=": "array e d c b a",
			"metadata=" + escape(`{"run":17}`): "c a", "metadata=" + escape(`{"run": 17, "by": ["y"]}`): "a", "metadata={}": "array e d c b a",
			"metadata=" + escape(`{"run":99}`): "", "scope=nightly&metadata=" + escape(`{"run":17}`): "a",
			"scope=nightly&kind=load": "b a", "scope=nightly&status=Running,Pending": "e b a", "scope=nightly&status=Success": "",
			"scope=nightly&page_size=1&page=1": "b",
		} {
			var got []string
			for _, b := range s.batches(query) {
				got = append(got, names[b.BatchID])
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %s\nwant %s", query, strings.Join(got, " "), want)
			}
		}
		got := s.batches("metadata=" + escape(`{"by":["x"]}`))[0]
		one := s.batch(got.BatchID)
		if got.Scope != "nightly" || one.Scope != "nightly" || string(got.Metadata) != `{"by":["x","y"],"run":17}` || string(one.Metadata) != string(got.Metadata) {
			t.Errorf("%s\n%s", jsonOf(got), jsonOf(one))
		}
		var walk []string
		for path := "/batches?scope=nightly&page_size=1"; path != ""; {
			a := s.want(200, "GET", path, nil)
			walk = append(walk, names[decode[[]api.BatchSummary](t, a)[0].BatchID])
			path = next(t, a)
		}
		if strings.Join(walk, " ") != "e b a" {
			t.Errorf("walked over %v", walk)
		}
		s.want(400, "GET", "/batches?metadata=x", nil)
		refused := s.want(400, "POST", "/task", obj{"taks": []obj{}, "scope": 7})
		for _, want := range []string{`unknown field \"taks\", did you mean \"tasks\"?`, "scope: must be a string", "tasks: is required"} {
			if !strings.Contains(string(refused.body), want) {
				t.Errorf("%s, want %s", refused.body, want)
			}
		}
	})
}
