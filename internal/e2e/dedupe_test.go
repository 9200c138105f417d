package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"taskrunner/api"
)

// unless is a dedupe strategy for tasks of a kind and the same tenant that have not ended.
func unless(kind string) []obj {
	var matchers []obj
	for _, status := range []string{"Waiting", "Pending", "Running", "Paused"} {
		matchers = append(matchers, obj{"kind": kind, "status": status, "fields": []string{"tenant"}})
	}
	return matchers
}

// TestDedupe: of 50 creates at once that ask for the same, one creates. It is so again as soon as that one has ended.
func TestDedupe(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		body := jsonOf([]obj{r.newTask("a", "/run", obj{"kind": "sync", "metadata": obj{"tenant": 7}, "dedupe_strategy": unless("sync")})})
		for range 2 {
			var mu sync.Mutex
			var wg sync.WaitGroup
			counts := map[int]int{}
			var created []api.Task
			for range 50 {
				wg.Go(func() {
					a := s.do(http.MethodPost, "/task", body)
					mu.Lock()
					defer mu.Unlock()
					if counts[a.status]++; a.status == http.StatusCreated {
						created = append(created, decode[[]api.Task](t, a)...)
					} else if a.header.Get("X-Batch-ID") == "" || len(a.body) > 0 {
						t.Errorf("a duplicate was answered %d %v %s", a.status, a.header, a.body)
					}
				})
			}
			wg.Wait()
			if counts[http.StatusCreated] != 1 || counts[http.StatusNoContent] != 49 || len(created) != 1 {
				t.Fatalf("answers %v, %d tasks were created", counts, len(created))
			}
			s.waitStatus(created[0].ID, "Running")
			s.finish(created[0].ID, "Success")
		}
		s.checkDrift()
	})
}

// TestDedupeDependents: what depends on a duplicate runs after the one that is there, in whatever batch that is.
func TestDedupeDependents(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tenant := obj{"tenant": "x"}
		first, _ := s.create([]obj{r.newTask("there", "/run", obj{"kind": "sync", "metadata": tenant})})
		there := first["there"].ID
		batch := []obj{
			r.newTask("dup", "/run", obj{"kind": "sync", "metadata": tenant, "dedupe_strategy": unless("sync")}),
			r.newTask("child", "/child", obj{"dependencies": []obj{dep("dup", true)}}),
		}
		a := s.want(http.StatusCreated, http.MethodPost, "/task", batch, "Idempotency-Key", "k")
		tasks := decode[[]api.Task](t, a)
		if len(tasks) != 1 || tasks[0].LocalID != "child" || tasks[0].Status != "Waiting" || len(tasks[0].Dependencies) != 1 || tasks[0].Dependencies[0].ID != there {
			t.Fatalf("created %s", a.body)
		}
		child := tasks[0].ID
		if again := decode[[]api.Task](t, s.want(http.StatusOK, http.MethodPost, "/task", batch, "Idempotency-Key", "k")); len(again) != 1 || again[0].ID != child {
			t.Errorf("replayed %s", jsonOf(again))
		}
		if e := s.explain(child); !strings.HasPrefix(e.Sentence, `It waits for its parent "Task there"`) || len(e.Unmet.Tasks) != 1 {
			t.Errorf("%s", jsonOf(e))
		}
		dag := decode[api.DAG](t, s.want(http.StatusOK, http.MethodGet, "/dag/"+tasks[0].BatchID, nil))
		if len(dag.Tasks) != 1 || len(dag.Links) != 1 || dag.Links[0].ParentID != there {
			t.Errorf("%s", jsonOf(dag))
		}
		s.waitStatus(there, "Running")
		s.finish(there, "Failure")
		failed := s.waitStatus(child, "Failure")
		if failed.FailureReason == nil || *failed.FailureReason != "Required parent task "+there+" failed" {
			t.Errorf("%s", jsonOf(failed))
		}

		// What has ended settles at once.
		ended := []obj{
			r.newTask("dup", "/run", obj{"kind": "sync", "metadata": tenant, "dedupe_strategy": []obj{{"kind": "sync", "status": "Failure", "fields": []string{"tenant"}}}}),
			r.newTask("needs it", "/child", obj{"dependencies": []obj{dep("dup", true)}, "on_failure": []obj{r.hook("/failed")}}),
			r.newTask("only after", "/child", obj{"dependencies": []obj{dep("dup", false)}}),
		}
		later, _ := s.create(ended)
		if later["needs it"].Status != "Failure" || later["only after"].Status != "Pending" || later["only after"].Dependencies[0].Status != "Failure" {
			t.Errorf("%s", jsonOf(later))
		}
		s.waitStatus(later["only after"].ID, "Running")
		r.wait(1, "on_failure of what failed as it was created", to("/failed"))
		s.checkDrift()
	})
}
