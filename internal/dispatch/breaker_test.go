package dispatch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

func TestPresence(t *testing.T) {
	t.Parallel()
	for status := 200; status <= 599; status++ {
		want := present
		if status == 502 || status == 503 || status == 504 {
			want = absent
		}
		if got := presenceOf(status, nil); got != want {
			t.Errorf("%d: %d", status, got)
		}
	}
	for _, c := range []struct {
		err  error
		want presence
	}{
		{io.EOF, absent}, {errors.New("connection refused"), absent}, {newGuard(t).Control("tcp", "10.0.0.1:80", nil), nothingKnown},
		{fmt.Errorf("%w: no", errUnusable), nothingKnown},
	} {
		if got := presenceOf(0, c.err); got != c.want {
			t.Errorf("%v: %d", c.err, got)
		}
	}
}

// Each row is what happens in turn: a letter for what a request comes to (p present, a absent, n nothing known), ? for
// one that may go out, ! for one that may not, and a number for seconds that pass.
func TestBreaker(t *testing.T) {
	t.Parallel()
	ten := []string{"a", "a", "a", "a", "a", "a", "a", "a", "a", "a"}
	after := func(first []string, more ...string) []string { return append(append([]string{}, first...), more...) }
	for name, c := range map[string]struct {
		steps    []string
		want     task.Breaker
		failures int
		pause    time.Duration
	}{
		"new":                            {steps: []string{"?", "?"}},
		"nine are too few":               {steps: after(ten[:9], "?"), failures: 9},
		"ten open it":                    {steps: after(ten, "!"), want: task.BreakerOpen, failures: 10, pause: time.Second},
		"in a row":                       {steps: after(ten[:9], "p", "a", "?"), failures: 1},
		"old ones do not count":          {steps: after(ten[:9], "61", "a", "?"), failures: 1},
		"nothing known, nothing changed": {steps: after(ten[:9], "n", "?"), failures: 9},
		"late failures do not prolong":   {steps: after(ten, "0.5", "a", "a", "!"), want: task.BreakerOpen, failures: 12, pause: time.Second / 2},
		"late success closes":            {steps: after(ten, "p", "?", "?")},
		"one probe":                      {steps: after(ten, "1", "?", "!", "!"), want: task.BreakerHalfOpen, failures: 10},
		"a probe that fails":             {steps: after(ten, "1", "?", "a", "!"), want: task.BreakerOpen, failures: 11, pause: 2 * time.Second},
		"a probe that tells nothing":     {steps: after(ten, "1", "?", "n", "?", "!"), want: task.BreakerHalfOpen, failures: 10},
		"a probe that succeeds":          {steps: after(ten, "1", "?", "p", "?", "?")},
		"it begins anew":                 {steps: after(after(ten, "1", "?", "a", "2", "?", "p"), ten...), want: task.BreakerOpen, failures: 10, pause: time.Second},
		"the pause grows to 10 s": {steps: after(ten, "1", "?", "a", "2", "?", "a", "4", "?", "a", "8", "?", "a", "10", "?", "a"),
			want: task.BreakerOpen, failures: 15, pause: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b breaker
			now := time.Unix(1000, 0)
			for i, step := range c.steps {
				switch step {
				case "?", "!":
					if b.admit() != (step == "?") {
						t.Fatalf("step %d: %s is wrong in %+v", i, step, b)
					}
				case "p", "a", "n":
					b.report(map[string]presence{"p": present, "a": absent, "n": nothingKnown}[step], now, 0)
				default:
					seconds, err := time.ParseDuration(step + "s")
					if err != nil {
						t.Fatal(err)
					}
					now = now.Add(seconds)
					b.due(now)
				}
			}
			pause := time.Duration(0)
			if !b.probe.IsZero() {
				pause = b.probe.Sub(now)
			}
			if b.state != c.want || b.failures != c.failures || pause != c.pause {
				t.Errorf("%v after %d failures, for %v; %+v", b.state, b.failures, pause, b)
			}
		})
	}
	var b breaker
	for i := range uint64(100) {
		b = breaker{failures: breakAfter - 1, failed: time.Unix(0, 0), openings: 9}
		b.report(absent, time.Unix(0, 0), i*1e17)
		if pause := b.probe.Sub(time.Unix(0, 0)); pause <= lastProbe/2 || pause > lastProbe {
			t.Errorf("pause %v", pause)
		}
	}
}

// A host is away for ten minutes: what was claimed waits, nothing fails, no more than one at a time tries it, and all
// goes out when it is there again.
func TestHostAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]network{
		"refuses": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
		"503":     func(*http.Request) (*http.Response, error) { return respond(503, "", "Retry-After", "1") },
		"hangs":   hang,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				back := time.Now().Add(10 * time.Minute)
				var tries atomic.Int64
				f := newFixture(t, Options{}, func(r *http.Request) (*http.Response, error) {
					if r.URL.Host == "away" && time.Now().Before(back) {
						tries.Add(1)
						return away(r)
					}
					return respond(200, "")
				})
				f.run(t)
				var claims []store.Claim
				for range 200 {
					claims = append(claims, claim("away"))
				}
				f.Start(claims)
				time.Sleep(time.Minute)
				synctest.Wait()
				before := int(tries.Load())
				if state := f.Host("away"); state.Breaker == task.BreakerClosed || state.Queued+state.InFlight != 200 || state.Failures != before-state.InFlight || state.LastError == "" {
					t.Errorf("%d tried, %+v", before, state)
				}
				if room := f.Room(); room.Host("away") != 0 || room.Host("other") != 256 || room.Total < 2047 {
					t.Errorf("room %+v", room)
				}
				for range 100 { // nobody else is held up
					f.Start([]store.Claim{claim("other")})
				}
				synctest.Wait()
				if got := len(f.store.settled()); got != 100 {
					t.Errorf("%d of the other host are settled", got)
				}
				f.store.set(func() {
					f.store.due = []store.Delivery{delivery("away", task.TriggerSuccess), delivery("other", task.TriggerSuccess)}
				})
				f.WakeOutbox()
				time.Sleep(time.Until(back) - time.Second)
				synctest.Wait()
				if got := len(f.store.finished()); got < 1 {
					t.Error("the outbox is held up")
				}
				if probes := int(tries.Load()) - before; probes > int(9*time.Minute/(lastProbe/2))+1 {
					t.Errorf("%d probes in nine minutes", probes)
				}
				if f.count(t, "webhook_hosts", "breaker", "closed") != 1 {
					t.Error("one of the two hosts is not closed")
				}
				time.Sleep(lastProbe + 12*time.Second)
				synctest.Wait()
				settled := f.store.settled()
				if len(settled) != 300 {
					t.Errorf("%d settled", len(settled))
				}
				for _, o := range settled {
					if o.Kind != task.Started || o.StartFailures > 1 {
						t.Fatalf("outcome %+v", o)
					}
				}
				if state := f.Host("away"); state.Breaker != task.BreakerClosed || state.Queued != 0 || state.Failures != 0 {
					t.Errorf("%+v", state)
				}
				if f.Room().Total != 2048 || len(f.Room().Busy) != 0 || len(f.Room().Shut) != 0 {
					t.Errorf("room %+v", f.Room())
				}
				if f.count(t, "webhook_breaker_openings_total") < 2 || f.count(t, "webhook_hosts", "breaker", "open") != 0 {
					t.Error("metrics")
				}
			})
		})
	}
}

// A host that is away is asked for again without anybody who waits here: the pump and the outbox find room for one.
func TestProbeIsClaimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rooms atomic.Int64
		var back atomic.Bool
		f := newFixture(t, Options{Rand: func() uint64 { return 0 }, OnRoom: func() { rooms.Add(1) }}, func(*http.Request) (*http.Response, error) {
			if !back.Load() {
				return nil, io.EOF
			}
			return respond(200, "")
		})
		for range breakAfter {
			f.store.due = append(f.store.due, delivery("a", task.TriggerSuccess))
		}
		f.run(t)
		synctest.Wait()
		if f.Room().Host("a") != 0 || f.Host("a").NextProbe.IsZero() {
			t.Errorf("room %+v", f.Room())
		}
		rooms.Store(0)
		f.store.set(func() {
			f.store.due = append(f.store.due, delivery("a", task.TriggerSuccess), delivery("a", task.TriggerSuccess))
		})
		f.WakeOutbox()
		time.Sleep(time.Second - time.Millisecond)
		synctest.Wait()
		if got := len(f.store.finished()); got != breakAfter {
			t.Errorf("%d were sent while the breaker is open", got)
		}
		back.Store(true)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := len(f.store.finished()); rooms.Load() == 0 || got != breakAfter+2 {
			t.Errorf("OnRoom %d times, %d recorded", rooms.Load(), got)
		}
	})
}

// A host that fails is given no more than it takes to open its breaker, but for what is out already.
func TestFailingHostIsGivenLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rooms atomic.Int64
		answers := make(chan error)
		f := newFixture(t, Options{OnRoom: func() { rooms.Add(1) }}, func(*http.Request) (*http.Response, error) {
			if err := <-answers; err != nil {
				return nil, err
			}
			return respond(200, "")
		})
		var claims []store.Claim
		for range breakAfter {
			claims = append(claims, claim("a"))
		}
		whole := f.Room().Host("a")
		f.Start(claims)
		for n := 1; n < breakAfter; n++ {
			answers <- io.EOF
			synctest.Wait()
			want := whole - len(claims)
			if n >= breakAfter/2 {
				want = 0
			}
			if got := f.Room().Host("a"); got != want {
				t.Errorf("room for %d after %d failures, want %d", got, n, want)
			}
		}
		if rooms.Load() != 0 {
			t.Errorf("OnRoom %d times", rooms.Load())
		}
		answers <- nil
		synctest.Wait()
		if got, want := f.Room().Host("a"), whole-len(claims)+1; got != want || rooms.Load() != 1 {
			t.Errorf("room for %d after a success, want %d; OnRoom %d times", got, want, rooms.Load())
		}
		for range len(claims) - 1 {
			answers <- nil
		}
		synctest.Wait()
	})
}

// Claimed on_starts of a worker that always answers 503 wait for their host. The next probe is left to one that is claimed
// only then: another worker of that host may be well.
func TestProbeIsNewFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		well := claim("a")
		f := newFixture(t, Options{}, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("X-Task-Id") == well.ID.String() {
				return respond(200, "")
			}
			return respond(503, "")
		})
		var claims []store.Claim
		for range breakAfter + 2 {
			claims = append(claims, claim("a"))
		}
		f.Start(claims)
		synctest.Wait()
		if room := f.Room().Host("a"); room != 0 {
			t.Fatalf("room %d while the breaker is open", room)
		}
		time.Sleep(time.Until(f.Host("a").NextProbe))
		synctest.Wait()
		if room := f.Room().Host("a"); room != 1 {
			t.Fatalf("room %d for a probe", room)
		}
		f.Start([]store.Claim{well})
		synctest.Wait()
		if got := f.store.settled(); len(got) != 1 || got[0].ID != well.ID || got[0].Kind != task.Started {
			t.Errorf("settled %+v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if state := f.Host("a"); state.Queued == 0 || state.Breaker == task.BreakerClosed {
			t.Errorf("%+v", state) // those that are left are all that anybody knows of the host
		}
	})
}

// There is always a delivery due to a worker that answers 503. It does not keep the probes from an on_start of another worker of
// that host, which was claimed before.
func TestProbesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		well := claim("a")
		var f *fixture
		due := func() {
			f.store.set(func() { f.store.due = append(f.store.due, delivery("a", task.TriggerSuccess)) })
			f.WakeOutbox()
		}
		f = newFixture(t, Options{OnRoom: due}, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("X-Task-Id") == well.ID.String() {
				return respond(200, "")
			}
			return respond(503, "")
		})
		breakHost(f, "a")
		f.Start([]store.Claim{well})
		f.run(t)
		for range 2 {
			time.Sleep(time.Until(f.Host("a").NextProbe) + 2*probeTurn)
			synctest.Wait()
		}
		if got := f.store.settled(); len(got) != 1 || got[0].ID != well.ID || got[0].Kind != task.Started {
			t.Errorf("after two probes, settled %+v", got)
		}
	})
}

func TestHostsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, func(*http.Request) (*http.Response, error) { return nil, io.EOF })
		for i := range maxIdleHosts + 100 {
			name := fmt.Sprint("h", i)
			for range breakAfter {
				if f.hosts.admit(name) != nil {
					t.Fatal("not admitted")
				}
			}
			for range breakAfter {
				f.hosts.report(name, absent, &answer{})
			}
		}
		waiting := f.hosts.admit(fmt.Sprint("h", 100)) // the one that was called first of those that are there
		if waiting == nil {
			t.Fatal("admitted")
		}
		if got := len(f.Hosts("", 1e6)); got != maxIdleHosts || len(f.Room().Shut) != maxIdleHosts {
			t.Errorf("%d are remembered", got)
		}
		if f.hosts.admit("new") != nil {
			t.Error("not admitted")
		}
		f.hosts.report("new", present, &answer{took: time.Second})
		select {
		case <-waiting:
		default:
			t.Error("who waits for a host that is forgotten is not told")
		}
		if got := f.Hosts("h99", 2); len(got) != 2 || got[0].Name != "h990" || got[1].Name != "h991" {
			t.Errorf("%v", got)
		}
		if s := f.Host("new"); s.P50 != time.Second || s.P99 != time.Second || s.Requests != 1 {
			t.Errorf("%+v", s)
		}
		if f.hosts.admit("newest") != nil {
			t.Error("not admitted")
		}
		f.hosts.report("newest", present, &answer{})
		if f.Host("new").Requests != 0 || f.Host("h101").Requests == 0 {
			t.Error("one that is away is forgotten before one that is not")
		}
	})
}

// Those who wait for a place over all hosts get it in turns.
func TestHostsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWindows(2, 2, func() map[string]int { return map[string]int{} }, newWorkers(t.Context().Done()), nil)
		var order []string
		release := make(chan struct{})
		for _, host := range []string{"a", "a", "a", "a", "a", "b", "b", "c"} {
			w.enter(host, func(bool) {
				w.mu.Lock()
				order = append(order, host)
				w.mu.Unlock()
				<-release
				w.leave(host)
			})
		}
		synctest.Wait()
		for range 8 {
			release <- struct{}{}
			synctest.Wait()
		}
		if got := fmt.Sprint(order); got != "[a a a b c a b a]" {
			t.Errorf("order %v", got)
		}
	})
}
