package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"taskrunner/api"
)

func TestStopBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		hang, release := r.hold(nil)
		r.handle("/hang", hang)
		r.handle("/work", r.withCancel("/cancel"))
		failure := []obj{r.hook("/failure")}
		rules := []obj{limit("held", 1)}
		tasks, batch := s.create([]obj{
			r.newTask("grandchild", "/run", obj{"dependencies": []obj{dep("child", false)}, "on_failure": failure}),
			r.newTask("child", "/run", obj{"dependencies": []obj{dep("running", false)}, "on_failure": failure}),
			r.newTask("paused", "/run", obj{"dependencies": []obj{dep("running", true)}, "on_failure": failure}),
			r.newTask("running", "/work", obj{"kind": "held", "rules": rules, "on_failure": failure}),
			r.newTask("pending", "/run", obj{"kind": "held", "rules": rules, "on_failure": failure}),
			r.newTask("claimed", "/hang", obj{"on_failure": failure}),
			r.newTask("success", "/run", nil),
		})
		s.waitStatus(tasks["running"].ID, "Running")
		s.waitStatus(tasks["success"].ID, "Running")
		r.wait(1, "on_start hangs", to("/hang"))
		s.finish(tasks["success"].ID, "Success")
		s.want(200, "PATCH", "/task/pause/"+tasks["paused"].ID, nil)
		others, other := s.create([]obj{r.newTask("next", "/run", obj{"kind": "held", "rules": rules})})
		s.held(r, tasks["pending"].ID, others["next"].ID)

		stop := func() api.StoppedBatch {
			return decode[api.StoppedBatch](t, s.want(200, "DELETE", "/batch/"+batch, nil))
		}
		want := api.StoppedBatch{
			BatchID: batch, CanceledWaiting: 2, CanceledPending: 1, CanceledClaimed: 1, CanceledRunning: 1, CanceledPaused: 1, AlreadyTerminal: 1,
		}
		if got := stop(); got != want {
			t.Errorf("stopped %s\nwant %s", jsonOf(got), jsonOf(want))
		}
		for name, task := range tasks {
			got := s.task(task.ID)
			if name == "success" {
				if got.Status != "Success" || got.FailureReason != nil {
					t.Errorf("what had ended: %s", jsonOf(got))
				}
			} else if got.Status != "Canceled" || got.FailureReason == nil || *got.FailureReason != "Batch stopped" {
				t.Errorf("%s: %s", name, jsonOf(got))
			}
		}
		if got := stop(); got != (api.StoppedBatch{BatchID: batch, AlreadyTerminal: 7}) {
			t.Errorf("again: %s", jsonOf(got))
		}
		release()
		r.wait(1, "the cancel action", to("/cancel"))
		s.waitStatus(others["next"].ID, "Running") // the slot is free, and no task of the stopped batch takes it
		s.want(409, "PATCH", "/task/"+tasks["running"].ID, obj{"status": "Success"})
		s.finish(others["next"].ID, "Success")
		if got := s.waitEnd(other); got.Success != 1 {
			t.Errorf("the other batch: %+v", got)
		}
		if n := len(r.got(to("/failure"))); n > 0 {
			t.Errorf("%d failure actions", n)
		}
		if n := len(r.got(sent("start", tasks["pending"].ID, tasks["child"].ID, tasks["grandchild"].ID, tasks["paused"].ID))); n > 0 {
			t.Errorf("%d tasks were started by the stop", n)
		}
		s.want(404, "DELETE", "/batch/0198c0de-5a10-7000-8000-00000000ffff", nil)
		s.want(400, "DELETE", "/batch/x", nil)
		s.checkDrift()
	})
}

// TestStopWhileItRuns: whatever happens to a large batch while it is stopped, when the answer is there all of it has
// ended, and everything is counted once. Some tasks have ended before, the workers of others all report while it is
// stopped, and the rest cannot start, since a worker does not end.
func TestStopWhileItRuns(t *testing.T) {
	const size, early, racing = 1000, 50, 400
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		begin := make(chan struct{})
		r.handle("/early", r.worker(0, "Success"))
		r.handle("/racing", func(_ http.ResponseWriter, c call) {
			r.jobs.Go(func() {
				select {
				case <-begin:
				case <-r.life.Done():
				}
				report(r.life, http.MethodPatch, c.Handle, obj{"status": "Success"})
			})
		})
		var batch []obj
		for i := range size { // two trees
			path, root := "/racing", 0
			switch {
			case i < early:
				path = "/early"
			case i >= racing:
				path, root = "/endless", racing
			}
			var parents []obj
			for p := range min(i-root, 1+rand.IntN(2)) {
				parents = append(parents, dep(fmt.Sprint(root+(i-root-1-p)/2), rand.IntN(2) == 0))
			}
			batch = append(batch, r.newTask(fmt.Sprint(i), path, obj{"dependencies": unique(parents)}))
		}
		_, id := s.create(batch)
		eventually(t, "the batch is under way", func() bool { return s.batch(id).StatusCounts.Success == early })
		close(begin)
		var stops [2]api.StoppedBatch
		var wg sync.WaitGroup
		for i := range stops {
			wg.Go(func() {
				a := s.do("DELETE", "/batch/"+id, nil)
				if a.status != 200 {
					t.Errorf("stop: %d %s", a.status, a.body)
					return
				}
				stops[i] = decode[api.StoppedBatch](t, a)
			})
		}
		wg.Wait()
		after := s.batch(id).StatusCounts
		if after.Success+after.Failure+after.Canceled != size {
			t.Errorf("when it was stopped: %s", jsonOf(after))
		}
		canceled := 0
		for _, stop := range stops {
			n := stop.CanceledWaiting + stop.CanceledPending + stop.CanceledClaimed + stop.CanceledRunning + stop.CanceledPaused
			if n+stop.AlreadyTerminal != size {
				t.Errorf("%s: not the whole batch", jsonOf(stop))
			}
			canceled += n
		}
		t.Logf("%d succeeded before or while it was stopped", after.Success)
		if canceled != after.Canceled || canceled < size-racing || after.Failure != 0 {
			t.Errorf("canceled %d by the answers; %s", canceled, jsonOf(after))
		}
		probe, _ := s.create([]obj{r.newTask("probe", "/early", nil)})
		s.waitStatus(probe["probe"].ID, "Success")
		if got := s.batch(id).StatusCounts; got != after {
			t.Errorf("after the answer %s became %s", jsonOf(after), jsonOf(got))
		}
		s.checkDrift()
	})
}

// unique drops what stands twice.
func unique(deps []obj) []obj {
	seen := map[any]bool{}
	var once []obj
	for _, d := range deps {
		if !seen[d["id"]] {
			seen[d["id"]] = true
			once = append(once, d)
		}
	}
	return once
}
