package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"taskrunner/api"
)

// TestDiamonds: every combination of how two parents end and whether the join requires their success.
func TestDiamonds(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		for _, status := range []string{"Success", "Failure"} {
			r.handle("/"+status, r.worker(0, status))
		}
		r.handle("/Canceled", func(_ http.ResponseWriter, c call) {
			r.jobs.Go(func() { report(r.life, "DELETE", c.Handle, nil) })
		})
		type join struct {
			ends     [2]string
			requires [2]bool
		}
		joins := map[string]join{}
		var batch []obj
		ends := []string{"Success", "Failure", "Canceled"}
		for i := range 3 * 3 * 4 {
			j := join{[2]string{ends[i%3], ends[i/3%3]}, [2]bool{i/9%2 == 0, i/18 == 0}}
			top, left, right, bottom := fmt.Sprint(i, " top"), fmt.Sprint(i, " left"), fmt.Sprint(i, " right"), fmt.Sprint(i, " join")
			joins[bottom] = j
			// The join stands first: the order in the request is free.
			batch = append(batch,
				r.newTask(bottom, "/Success", obj{"dependencies": []obj{dep(left, j.requires[0]), dep(right, j.requires[1])}}),
				r.newTask(left, "/"+j.ends[0], obj{"dependencies": []obj{dep(top, true)}}),
				r.newTask(right, "/"+j.ends[1], obj{"dependencies": []obj{dep(top, true)}}),
				r.newTask(top, "/Success", nil))
		}
		tasks, id := s.create(batch)
		s.waitEnd(id)
		for bottom, j := range joins {
			got := s.task(tasks[bottom].ID)
			want, reasons := "Success", map[string]bool{}
			for side, parent := range got.Dependencies {
				if parent.Status != j.ends[side] || parent.RequiresSuccess != j.requires[side] {
					t.Errorf("%s: dependency %s, want %s and %t", bottom, jsonOf(parent), j.ends[side], j.requires[side])
				}
				if j.requires[side] && j.ends[side] != "Success" {
					want = "Failure"
					reasons["Required parent task "+parent.ID+" failed"] = true
				}
			}
			if got.Status != want || want == "Failure" && !reasons[text(got.FailureReason)] {
				t.Errorf("%+v: %s because %q, want %s", j, got.Status, text(got.FailureReason), want)
			}
			wantStarts := map[string]int{"Success": 1, "Failure": 0}[want]
			if starts := r.got(sent("start", got.ID)); len(starts) != wantStarts {
				t.Errorf("%+v: %d on_start, want %d", j, len(starts), wantStarts)
			}
		}
	})
}

func TestFanOutAndFanIn(t *testing.T) {
	const width = 2000
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.worker(0, "Success"))
		batch := []obj{r.newTask("root", "/run", nil)}
		var all []obj
		for i := range width {
			id := fmt.Sprint("leaf ", i)
			batch = append(batch, r.newTask(id, "/run", obj{"dependencies": []obj{dep("root", true)}}))
			all = append(all, dep(id, true))
		}
		batch = append(batch, r.newTask("join", "/run", obj{"dependencies": all}))
		tasks, id := s.create(batch)
		if n := s.waitEnd(id); n.Success != width+2 {
			t.Errorf("ends %+v", n)
		}
		starts := r.got(sent("start"))
		if len(starts) != width+2 || starts[0].Task != tasks["root"].ID || starts[len(starts)-1].Task != tasks["join"].ID {
			t.Errorf("%d on_start, want %d with the root first and the join last", len(starts), width+2)
		}
		seen := map[string]bool{}
		for _, c := range starts {
			if seen[c.Key] {
				t.Errorf("%s was sent twice", c.Key)
			}
			seen[c.Key] = true
		}
	})
}

func TestCascadingFailure(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/fail", r.worker(0, "Failure"))
		r.handle("/run", r.worker(0, "Success"))
		with := func(deps ...obj) obj {
			return obj{"dependencies": deps, "on_failure": []obj{r.hook("/failed"), r.hook("/failed/again")}, "on_success": []obj{r.hook("/well")}}
		}
		tasks, id := s.create([]obj{
			r.newTask("0", "/fail", with()),
			r.newTask("1", "/run", with(dep("0", true))),
			r.newTask("2", "/run", with(obj{"id": "1"})), // required is the default
			r.newTask("3", "/run", with(dep("2", true), dep("root", true))),
			r.newTask("easy", "/run", with(dep("2", false))),
			r.newTask("root", "/run", nil),
		})
		if n := s.waitEnd(id); n != (api.StatusCounts{Success: 2, Failure: 4}) {
			t.Errorf("ends %+v", n)
		}
		r.wait(8, "two on_failure of each", sent("end", tasks["0"].ID, tasks["1"].ID, tasks["2"].ID, tasks["3"].ID))
		r.wait(1, "on_success of the one that does not mind", to("/well"))
		for level, reason := range []string{"the worker says so", "0", "1", "2"} {
			if level > 0 {
				reason = "Required parent task " + tasks[reason].ID + " failed"
			}
			if got := s.task(tasks[fmt.Sprint(level)].ID); text(got.FailureReason) != reason {
				t.Errorf("level %d: reason %q, want %q", level, text(got.FailureReason), reason)
			}
		}
		s.stop() // whatever was on its way has arrived
		for level := range 4 {
			task := tasks[fmt.Sprint(level)].ID
			keys := map[string]int{}
			for _, c := range r.got(sent("end", task)) {
				keys[c.Path+" "+c.Key]++
			}
			if len(keys) != 2 || keys["/failed "+task+":end:failure"] != 1 || keys["/failed/again "+task+":end:failure:1"] != 1 {
				t.Errorf("level %d: end webhooks %v", level, keys)
			}
			if n := len(r.got(sent("start", task))); n != map[bool]int{true: 1}[level == 0] {
				t.Errorf("level %d: %d on_start", level, n)
			}
		}
	})
}
