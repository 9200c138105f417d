package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
)

func TestDryRun(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		const width, max = 5, 2
		tasks := []obj{r.newTask("join", "/run", nil), r.newTask("root", "/run", nil)}
		var middle, join []obj
		for i := range width {
			id := "m" + strconv.Itoa(i)
			middle = append(middle, r.newTask(id, "/run", obj{
				"kind": "middle", "dependencies": []obj{dep("root", true)}, "metadata": obj{"tenant": 7, "n": i},
				"rules": []obj{limit("middle", max, "tenant"), limit("middle", 1, "n", "tenant")},
			}))
			join = append(join, dep(id, false))
		}
		tasks[0]["dependencies"] = join
		body := jsonOf(append(tasks, middle...))
		got := decode[api.DryRun](t, s.want(http.StatusOK, http.MethodPost, "/task?dry_run=true", body, "Idempotency-Key", "key"))

		raw := func(v any) json.RawMessage { return json.RawMessage(jsonOf(v)) }
		gate := func(values map[string]json.RawMessage) api.Gate {
			return api.Gate{
				Type: "Concurency", Kind: "middle", Status: "Running", Fields: slices.Sorted(maps.Keys(values)), Values: values,
			}
		}
		want := api.DryRun{
			Tasks: width + 2, Links: 2 * width,
			Waves:       [][]string{{"root"}, {"m0", "m1", "m2", "m3", "m4"}, {"join"}},
			LongestPath: []string{"root", "m0", "join"},
			Limits: []api.DryRunLimit{{
				Gate: gate(map[string]json.RawMessage{"tenant": raw(7)}), Max: max, Tasks: width, AtOnce: width, Binds: true,
			}},
		}
		for i := range width {
			want.Limits = append(want.Limits, api.DryRunLimit{
				Gate: gate(map[string]json.RawMessage{"n": raw(i), "tenant": raw(7)}), Max: 1, Tasks: 1, AtOnce: 1,
			})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if a := s.want(http.StatusOK, http.MethodGet, "/task", nil); len(decode[[]api.TaskSummary](t, a)) != 0 {
			t.Errorf("a dry run created tasks: %s", a.body)
		}

		// What was announced is what happens; the key is still free.
		created := decode[[]api.Task](t, s.post(http.StatusCreated, "key", body))
		byLocal := map[string]api.Task{}
		for _, task := range created {
			byLocal[task.LocalID] = task
		}
		s.waitStatus(byLocal["root"].ID, "Running")
		s.finish(byLocal["root"].ID, "Success")
		r.wait(1+max, "as many as the limit allows are started", sent("start"))
		waiting := slices.DeleteFunc(created, func(task api.Task) bool {
			return task.Kind != "middle" || s.task(task.ID).Status != "Pending" || !s.task(task.ID).ClaimedAt.IsZero()
		})
		if len(waiting) != width-max {
			t.Errorf("%d wait, want %d", len(waiting), width-max)
		}
	})
}

// A dry run refuses exactly what a create refuses, with the same words.
func TestDryRunRefusesLikeACreate(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		for _, body := range []any{
			"", "[", `{"tasks":1}`, []obj{{"id": "a"}},
			[]obj{r.newTask("a", "/", obj{"dependencies": []obj{dep("b", true)}}), r.newTask("b", "/", obj{"dependencies": []obj{dep("a", true)}})},
			[]obj{r.newTask("a", "/", obj{"rules": []obj{limit("k", 1, "missing")}})},
			[]obj{r.newTask("a", "/", obj{"on_start": obj{"kind": "Webhook", "params": obj{"url": "http://192.168.0.1/", "verb": "Post"}}})},
		} {
			create := decode[api.Problem](t, s.want(http.StatusBadRequest, http.MethodPost, "/task", body))
			dry := decode[api.Problem](t, s.want(http.StatusBadRequest, http.MethodPost, "/task?dry_run=true", body))
			create.BatchID, dry.BatchID = "", ""
			if diff := cmp.Diff(create, dry); diff != "" {
				t.Errorf("%v (-create +dry run):\n%s", body, diff)
			}
		}
		s.want(http.StatusBadRequest, http.MethodPost, "/task?dry_run=yes", []obj{r.newTask("a", "/", nil)})
		if a := s.want(http.StatusOK, http.MethodGet, "/task", nil); len(decode[[]api.TaskSummary](t, a)) != 0 {
			t.Errorf("%s", a.body)
		}
	})
}
