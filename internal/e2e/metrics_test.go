package e2e

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"testing"
)

// metrics are the samples of GET /metrics, by name and labels as they stand there.
func (c *client) metrics() map[string]float64 {
	c.t.Helper()
	samples := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(c.want(200, "GET", "/metrics", nil).body))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && !strings.HasPrefix(line, "#") {
			value, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				c.t.Errorf("metrics: %s", line)
			}
			samples[line[:i]] = value
		}
	}
	return samples
}

func TestMetrics(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/refuse", answers(400))
		rules := []obj{limit("one at a time", 1)}
		end := []obj{r.hook("/end")}
		tasks, batch := s.create([]obj{
			r.newTask("a", "/run", obj{"on_success": end}),
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}}),
			r.newTask("c", "/run", obj{"kind": "other"}),
			r.newTask("d", "/run", obj{"kind": "other", "dependencies": []obj{dep("c", true), dep("b", false)}, "on_failure": end}),
			r.newTask("e", "/run", obj{"dependencies": []obj{dep("c", false)}}),
			r.newTask("f", "/run", nil),
			r.newTask("g", "/refuse", nil),
			r.newTask("h", "/run", obj{"kind": "one at a time", "rules": rules}),
			r.newTask("i", "/run", obj{"kind": "one at a time", "rules": rules}),
		})
		finish := func(local, status string) {
			s.waitStatus(tasks[local].ID, "Running")
			s.finish(tasks[local].ID, status)
		}
		s.waitStatus(tasks["h"].ID, "Running")
		s.want(200, "PATCH", "/task/pause/"+tasks["h"].ID, nil)
		s.want(200, "PATCH", "/task/resume/"+tasks["h"].ID, nil)
		finish("a", "Success")
		finish("c", "Failure")
		finish("b", "Success")
		finish("e", "Success")
		s.waitStatus(tasks["f"].ID, "Running")
		s.want(200, "DELETE", "/task/"+tasks["f"].ID, nil)
		s.held(r, tasks["i"].ID)
		finish("h", "Success")
		finish("i", "Success")
		s.waitEnd(batch)
		r.wait(2, "the end webhooks", to("/end"))
		s.want(404, "GET", "/batch/0198c0de-5a10-7000-8000-00000000ffff", nil)

		// The probe of held is one of 10 tasks; it was canceled while Running.
		want := map[string]float64{
			`tasks_created_total`: 10,
			`tasks_completed_total{kind="test",outcome="success"}`:                               3,
			`tasks_completed_total{kind="test",outcome="failure"}`:                               1,
			`tasks_completed_total{kind="test",outcome="canceled"}`:                              1,
			`tasks_completed_total{kind="probe",outcome="canceled"}`:                             1,
			`tasks_completed_total{kind="other",outcome="failure"}`:                              2,
			`tasks_completed_total{kind="one at a time",outcome="success"}`:                      2,
			`task_status_transitions_total{from_status="Pending",to_status="Claimed"}`:           9,
			`task_status_transitions_total{from_status="Claimed",to_status="Running"}`:           8,
			`task_status_transitions_total{from_status="Claimed",to_status="Failure"}`:           1,
			`task_status_transitions_total{from_status="Running",to_status="Success"}`:           5,
			`task_status_transitions_total{from_status="Running",to_status="Failure"}`:           1,
			`task_status_transitions_total{from_status="Running",to_status="Canceled"}`:          2,
			`task_status_transitions_total{from_status="Running",to_status="Paused"}`:            1,
			`task_status_transitions_total{from_status="Paused",to_status="Running"}`:            1,
			`task_status_transitions_total{from_status="Waiting",to_status="Pending"}`:           2,
			`task_status_transitions_total{from_status="Waiting",to_status="Failure"}`:           1,
			`tasks_blocked_by_concurrency_total`:                                                 1,
			`dependency_propagations_total{parent_outcome="success"}`:                            2,
			`dependency_propagations_total{parent_outcome="failure"}`:                            2,
			`webhook_requests_total{outcome="done",trigger="start"}`:                             8,
			`webhook_requests_total{outcome="failed",trigger="start"}`:                           1,
			`webhook_requests_total{outcome="done",trigger="end"}`:                               2,
			`webhook_requests_total{outcome="retry",trigger="end"}`:                              0,
			`webhook_duration_seconds_count{trigger="start"}`:                                    9,
			`webhooks_in_flight{trigger="start"}`:                                                0,
			`deliveries_dead_total{trigger="end"}`:                                               0,
			`cancel_actions_ignored_total`:                                                       0,
			`gate_drift`:                                                                         0,
			`http_request_duration_seconds_count{code="201",method="POST",route="/task"}`:        2,
			`http_request_duration_seconds_count{code="404",method="GET",route="/batch/{id}"}`:   1,
			`http_request_duration_seconds_count{code="200",method="DELETE",route="/task/{id}"}`: 2,
		}
		var got map[string]float64
		eventually(t, "the end webhooks are counted", func() bool {
			got = s.metrics()
			return got[`webhook_requests_total{outcome="done",trigger="end"}`] == 2
		})
		for name, value := range want {
			if n, there := got[name]; !there || n != value {
				t.Errorf("%s is %v (there: %t), want %v", name, n, there, value)
			}
		}
		for _, name := range []string{"worker_loop_duration_seconds_count", "settle_duration_seconds_count", "go_goroutines"} {
			if got[name] == 0 {
				t.Errorf("%s is 0", name)
			}
		}
		for name := range got { // nothing that was not expected
			for _, prefix := range []string{"tasks_completed_total", "task_status_transitions_total", "dependency_propagations_total"} {
				if _, expected := want[name]; strings.HasPrefix(name, prefix) && !expected {
					t.Errorf("%s is %v", name, got[name])
				}
			}
		}
	})
}
