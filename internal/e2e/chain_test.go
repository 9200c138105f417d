package e2e

import (
	"testing"
	"time"
)

func TestChainRunsInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/run", r.worker(time.Millisecond, "Success"))
		tasks, batch := s.create([]obj{
			r.newTask("c", "/run", obj{"dependencies": []obj{dep("b", true)}, "on_success": []obj{r.hook("/end")}}),
			r.newTask("b", "/run", obj{"dependencies": []obj{dep("a", true)}}),
			r.newTask("a", "/run", nil),
		})
		r.wait(1, "the end webhook", func(c call) bool { return c.Trigger == "end" })
		starts := r.got(func(c call) bool { return c.Trigger == "start" })
		for i, local := range []string{"a", "b", "c"} {
			if len(starts) != 3 || starts[i].Task != tasks[local].ID {
				t.Fatalf("start %d is not that of %s: %s", i, local, jsonOf(starts))
			}
			if want := tasks[local].ID + ":start"; starts[i].Key != want {
				t.Errorf("Idempotency-Key %q, want %q", starts[i].Key, want)
			}
		}
		if got := s.batch(batch).StatusCounts.Success; got != 3 {
			t.Errorf("%d successes, want 3", got)
		}
	})
}
