package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"taskrunner/api"
)

// shortly is a retention of some seconds.
var shortly = map[string]string{"RETENTION_DAYS": "0.00003"}

// stopped creates a batch of n tasks that wait for the first of them, and cancels them all. Its ids are those of the first
// and the last task.
func (c *client) stopped(r *receiver, n int) (ids []string, batch string) {
	c.t.Helper()
	tasks := []obj{r.newTask("first", "/hold", nil)}
	for i := range n - 1 {
		tasks = append(tasks, r.newTask(fmt.Sprint(i), "/run", obj{"dependencies": []obj{dep("first", true)}}))
	}
	byLocal, batch := c.create(tasks)
	c.want(http.StatusOK, http.MethodDelete, "/batch/"+batch, nil)
	return []string{byLocal["first"].ID, byLocal[fmt.Sprint(n-2)].ID}, batch
}

// gone reports whether nothing is left of a batch. It fails where a part is.
func (c *client) gone(batch string, ids []string) bool {
	c.t.Helper()
	status := func(path string) int {
		a, err := c.try(c.t.Context(), http.MethodGet, path, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		return a.status
	}
	if status("/batch/"+batch) != http.StatusNotFound {
		return false
	}
	for _, path := range []string{"/dag/" + batch, "/task/" + ids[0], "/task/" + ids[1], "/task/" + ids[1] + "/history"} {
		if got := status(path); got != http.StatusNotFound {
			c.t.Errorf("GET %s of a batch that is gone is answered with %d", path, got)
		}
	}
	if left := c.listed("/task?batch_id=" + batch); left > 0 {
		c.t.Errorf("%d tasks are listed of a batch that is gone", left)
	}
	return true
}

func (c *client) listed(path string) int {
	c.t.Helper()
	return len(decode[[]api.Task](c.t, c.want(http.StatusOK, http.MethodGet, path, nil)))
}

func TestRetention(t *testing.T) {
	onBothWith(t, shortly, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.worker(0, "Success"))
		live, liveBatch := s.create([]obj{
			r.newTask("holding", "/hold", nil),
			r.newTask("done", "/hold", nil),
			r.newTask("after", "/run", obj{"dependencies": []obj{dep("holding", true)}}),
		})
		s.waitStatus(live["done"].ID, "Running")
		s.finish(live["done"].ID, "Failure")
		for range 2 {
			old, batch := s.create([]obj{
				r.newTask("first", "/run", obj{"on_success": []obj{r.hook("/end")}}),
				r.newTask("second", "/run", obj{"dependencies": []obj{dep("first", true)}}),
			})
			eventually(t, "the old batch is gone", func() bool {
				return s.gone(batch, []string{old["first"].ID, old["second"].ID})
			})
			r.wait(1, "its webhook was sent", sent("end", old["first"].ID))
		}
		if b := s.batch(liveBatch); b.TotalTasks != 3 || s.listed("/task?batch_id="+liveBatch) != 3 {
			t.Errorf("a batch that has not ended: %+v", b)
		}
		if dag := decode[api.DAG](t, s.want(http.StatusOK, http.MethodGet, "/dag/"+liveBatch, nil)); len(dag.Tasks) != 3 || len(dag.Links) != 1 {
			t.Errorf("%+v", dag)
		}
		s.waitStatus(live["holding"].ID, "Running")
		s.finish(live["holding"].ID, "Success")
		eventually(t, "nothing is left", func() bool {
			return s.gone(liveBatch, []string{live["holding"].ID, live["after"].ID}) && s.listed("/task") == 0
		})
		eventually(t, "all is counted", func() bool { // a batch is gone before its tasks are deleted
			m := s.metrics()
			return m["batches_removed_total"] == 3 && m["tasks_removed_total"] == 7
		})
		if !strings.Contains(s.log.String(), "old batches removed") {
			t.Error("nothing is logged")
		}
		s.checkDrift()
	})
}

func TestNoRetention(t *testing.T) {
	onBothWith(t, map[string]string{"RETENTION_DAYS": "0"}, func(t *testing.T, s *service) {
		s.want(http.StatusOK, http.MethodGet, "/ready", nil)
		if !strings.Contains(s.log.String(), `keep="for good"`) {
			t.Errorf("log: %s", s.log)
		}
	})
}

// Whoever is killed while it removes batches leaves nothing half for readers, and the next process finishes it.
func TestKilledWhileItRemovesBatches(t *testing.T) {
	t.Parallel()
	for _, db := range databases {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			url, r := databaseURL(t, db), newReceiver(t)
			p := startProcess(t, url, shortly)
			var batches []string
			var ids [][]string
			for _, point := range []string{"expired:1", "purged:1", "purged:2"} {
				p.kill()
				p.point = point
				p.start()
				id, batch := p.stopped(r, 2500)
				batches, ids = append(batches, batch), append(ids, id)
				state := p.wait()
				if ws, ok := state.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
					t.Fatalf("%s: the process ended with %s", point, state)
				}
				p.point = ""
				p.start()
				if !p.gone(batch, id) {
					t.Errorf("%s: the batch is there", point)
				}
				eventually(t, "nothing is left", func() bool { return p.listed("/task?cursor=") == 0 })
			}
			for i := range batches {
				if !p.gone(batches[i], ids[i]) {
					t.Errorf("batch %d is back", i)
				}
			}
			p.terminate()
			if state := p.wait(); state.ExitCode() != 0 {
				t.Errorf("the service ended with %s", state)
			}
			if n := drift(t, url); n != 0 {
				t.Errorf("%d gates differ from the tasks that hold them", n)
			}
		})
	}
}

func TestReplicasRemoveBatchesTogether(t *testing.T) {
	t.Parallel()
	url, r := databaseURL(t, "postgres"), newReceiver(t)
	const batches, size = 12, 150
	s := replicas{startService(t, url, shortly), startService(t, url, shortly)}
	for i := range batches {
		s[i%2].stopped(r, size)
	}
	removed := func(name string) int { return int(s[0].metrics()[name] + s[1].metrics()[name]) }
	eventually(t, "nothing is left", func() bool { return s.any().listed("/task?cursor=") == 0 })
	eventually(t, "it is counted", func() bool { return removed("tasks_removed_total") >= batches*size })
	if b, n := removed("batches_removed_total"), removed("tasks_removed_total"); b != batches || n != batches*size {
		t.Errorf("%d batches and %d tasks were removed", b, n)
	}
	s.checkDrift()
}
