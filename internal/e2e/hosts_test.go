package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"taskrunner/api"
)

// hosts is what GET /hosts tells of a receiver.
func (c *client) hosts(r *receiver) (found api.Host) {
	c.t.Helper()
	for _, h := range decode[[]api.Host](c.t, c.want(http.StatusOK, http.MethodGet, "/hosts?page_size=100", nil)) {
		if h.Name == strings.TrimPrefix(r.url, "http://") {
			found = h
		}
	}
	return found
}

// TestHostAway: somebody answers 503 in the name of a host that is not there, while two processes work (one on SQLite). Its
// tasks wait as Pending and say why, those of another host run, and when it is there again all of its tasks start: none has
// failed.
func TestHostAway(t *testing.T) {
	patient := map[string]string{"WEBHOOK_TIMEOUT": "60s"} // the hosts are judged by their answers
	onBothWith(t, patient, func(t *testing.T, s *service) {
		processes := []*service{s}
		if !strings.HasPrefix(s.database, "sqlite") {
			processes = append(processes, startService(t, s.database, patient))
		}
		away, there := newReceiver(t), newReceiver(t)
		back := make(chan struct{})
		away.handle("/run", func(w http.ResponseWriter, c call) {
			select {
			case <-back:
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		var batch []obj
		for i := range 1500 {
			batch = append(batch, away.newTask(fmt.Sprint("away", i), "/run", obj{"priority": 9}))
		}
		tasks, id := s.create(batch)
		eventually(t, "the breaker opens", func() bool {
			return slices.ContainsFunc(processes, func(p *service) bool { return p.hosts(away).Breaker.State != "closed" })
		})
		var live []obj
		for i := range 200 {
			live = append(live, there.newTask(fmt.Sprint("live", i), "/run", nil))
		}
		there.handle("/run", there.worker(0, "Success"))
		_, liveID := s.create(live)
		s.waitEnd(liveID)
		// The last one stands behind all the others.
		var e api.Explanation
		eventually(t, "the reason", func() bool {
			e = s.explain(tasks["away1499"].ID)
			return strings.HasPrefix(e.Sentence, "No rule holds it back, but its host "+e.Host.Name+" is failing: ")
		})
		if e.Status != "Pending" || e.Host.Breaker.State == "closed" || e.Host.Breaker.Failures < 10 || e.Host.Breaker.LastError == nil ||
			!slices.Equal(e.ToStart, []string{"Its host answers a request again"}) {
			t.Errorf("%s", jsonOf(e))
		}
		// Which of two processes sends what is chance.
		var toAway, toThere uint64
		for _, p := range processes {
			h := p.hosts(away)
			toAway += h.Requests
			if h.Failed != h.Requests || h.InFlight > 1 {
				t.Errorf("%s", jsonOf(h))
			}
			h = p.hosts(there)
			toThere += h.Requests
			if h.Failed > 0 || h.Requests > 0 && (h.Breaker.State != "closed" || h.Latency == nil) {
				t.Errorf("%s", jsonOf(h))
			}
		}
		if toAway < 10 || toThere != uint64(len(live)) {
			t.Errorf("%d requests to the host that is away, %d to the other", toAway, toThere)
		}
		close(back)
		var counts api.StatusCounts
		deadline := time.Now().Add(90 * time.Second) // a probe may be 10 s away
		for counts.Running < len(batch) && time.Now().Before(deadline) {
			counts = s.batch(id).StatusCounts
			time.Sleep(50 * time.Millisecond)
		}
		if counts.Running != len(batch) {
			t.Errorf("%+v", counts)
		}
		for _, p := range processes {
			if h := p.hosts(away); h.Requests > 0 && (h.Breaker.State != "closed" || h.Queued != 0 || h.Breaker.NextProbe != (api.Time{})) {
				t.Errorf("%s", jsonOf(h))
			}
		}
	})
}

// TestHostAwayAtGate: many tasks for a host that is away wait at a gate in front of some for another host. These run, as many
// at once as may be; the others do when their host is there again, never more at once, and none is lost.
func TestHostAwayAtGate(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_TIMEOUT": "60s"}, func(t *testing.T, s *service) {
		away, there, m := newReceiver(t), newReceiver(t), newMeter()
		back := make(chan struct{})
		works := away.metered(m, map[string]int{"back": 2}, "back", "all")
		away.handle("/run", func(w http.ResponseWriter, c call) {
			select {
			case <-back:
				works(w, c)
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		var open, probing atomic.Bool
		away.handle("/probe", func(w http.ResponseWriter, _ call) {
			if !open.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			probing.Store(true) // and as long as this one is out, no other is
			select {
			case <-back:
			case <-away.life.Done():
			}
		})
		there.handle("/run", there.metered(m, map[string]int{"there": 2}, "there", "all"))
		there.handle("/hold", func(http.ResponseWriter, call) {})
		gated := func(r *receiver, id, path string, priority int) obj {
			return r.newTask(id, path, obj{"kind": "gated", "rules": []obj{limit("gated", 2)}, "priority": priority})
		}
		holders, _ := s.create([]obj{gated(there, "h0", "/hold", 0), gated(there, "h1", "/hold", 0)})
		var tries, waiters, live []obj
		for i := range 200 {
			waiters = append(waiters, gated(away, fmt.Sprint("away", i), "/run", 9))
		}
		for i := range 20 {
			live = append(live, gated(there, fmt.Sprint("live", i), "/run", 0))
			tries = append(tries, away.newTask(fmt.Sprint("probe", i), "/probe", obj{"kind": "probe"}))
		}
		for _, h := range holders {
			s.waitStatus(h.ID, "Running")
		}
		waiting, awayID := s.create(waiters)
		behind, liveID := s.create(live)
		for _, last := range []string{waiting["away199"].ID, behind["live19"].ID} {
			eventually(t, "all are parked", func() bool { return s.explain(last).Rules[0].Place != nil })
		}
		s.create(tries)
		eventually(t, "the breaker opens, and all have their answers", func() bool {
			h := s.hosts(away)
			return h.Breaker.State == "open" && h.InFlight == 0
		})
		open.Store(true)
		eventually(t, "a probe is out", probing.Load)
		for _, h := range holders {
			s.finish(h.ID, "Success")
		}
		if n := s.waitEnd(liveID); n.Success != len(live) {
			t.Errorf("of those for the other host: %+v", n)
		}
		// Should the probe time out on a busy machine, one of these may be the next, and hold its place at the gate.
		if n := s.batch(awayID).StatusCounts; n.Pending < len(waiters)-1 || n.Pending+n.Claimed != len(waiters) {
			t.Errorf("of those for the host that is away: %+v", n)
		}
		close(back)
		if n := s.waitEnd(awayID); n.Success != len(waiters) {
			t.Errorf("of those for the host that is there again: %+v", n)
		}
		m.check(t, map[string]int{"there": 2, "back": 2, "all": 2})
		s.checkDrift()
	})
}

// TestHalfHang: half of the hosts never answer. The tasks of the others all run to their end while none of those comes back.
func TestHalfHang(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_TIMEOUT": "60s", "WEBHOOK_WINDOW": "64", "WEBHOOK_HOST_WINDOW": "8"}, func(t *testing.T, s *service) {
		var hanging, healthy []*receiver
		for range 16 {
			r := newReceiver(t)
			if len(hanging) < 8 {
				hang, _ := r.hold(nil)
				r.handle("/run", hang)
				hanging = append(hanging, r)
			} else {
				r.handle("/run", r.worker(0, "Success"))
				healthy = append(healthy, r)
			}
		}
		var stuck, live []obj
		for i := range 50 * 8 {
			stuck = append(stuck, hanging[i%8].newTask(fmt.Sprint("s", i), "/run", obj{"priority": 100}))
			live = append(live, healthy[i%8].newTask(fmt.Sprint("l", i), "/run", nil))
		}
		s.create(stuck)
		for _, r := range hanging {
			r.wait(1, "all that hang have something", to("/run"))
		}
		_, id := s.create(live)
		s.waitEnd(id)
		for _, r := range hanging {
			tasks := map[string]bool{} // a request that has timed out is sent again
			for _, c := range r.got(to("/run")) {
				tasks[c.Task] = true
			}
			if len(tasks) > 8 {
				t.Errorf("the requests of %d tasks went to a host whose window is 8", len(tasks))
			}
		}
	})
}
