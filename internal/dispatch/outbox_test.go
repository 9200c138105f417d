package dispatch

import (
	"container/heap"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// timedStore is an outbox that keeps the times: what is due, what is leased, what is to be sent again later.
type timedStore struct {
	fakeStore
	mu      sync.Mutex
	records map[task.ID]*timedRecord
	queue   timedQueue
	pending int
}

type timedRecord struct {
	store.Delivery
	state    store.DeliveryState
	at       time.Time // due, or the end of the lease
	place    int       // in the queue
	lastCode int
}

// timedQueue has the earliest first.
type timedQueue []*timedRecord

func (q timedQueue) Len() int           { return len(q) }
func (q timedQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q timedQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].place, q[j].place = i, j }
func (q *timedQueue) Push(r any)        { r.(*timedRecord).place = len(*q); *q = append(*q, r.(*timedRecord)) }
func (q *timedQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (s *timedStore) add(d store.Delivery) {
	r := &timedRecord{Delivery: d, state: store.DeliveryPending, at: time.Now()}
	s.records[d.ID] = r
	s.pending++
	heap.Push(&s.queue, r)
}

func (s *timedStore) ClaimDeliveries(_ context.Context, p store.ClaimDeliveriesParams) (c store.ClaimedDeliveries, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := map[string]int{}
	var passed []*timedRecord
	for len(s.queue) > 0 && !s.queue[0].at.After(time.Now()) {
		r := heap.Pop(&s.queue).(*timedRecord)
		passed = append(passed, r)
		if len(c.Deliveries) >= p.Room.Total || hosts[r.Host] >= p.Room.Host(r.Host) {
			c.More = true
			continue
		}
		hosts[r.Host]++
		r.at = time.Now().Add(r.Lease(p.Lease))
		c.Deliveries = append(c.Deliveries, r.Delivery)
	}
	for _, r := range passed {
		heap.Push(&s.queue, r)
	}
	return c, nil
}

func (s *timedStore) FinishDeliveries(_ context.Context, attempts []store.Attempt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range attempts {
		r := s.records[a.Delivery]
		if r.state != store.DeliveryPending {
			continue // another process has finished it
		}
		r.state, r.lastCode, r.at = a.State, a.Status, time.Now().Add(a.Retry)
		if a.Error != "" {
			r.Failures++
		}
		if a.State == store.DeliveryPending {
			heap.Fix(&s.queue, r.place)
			continue
		}
		heap.Remove(&s.queue, r.place)
		s.pending--
	}
	return nil
}

func (s *timedStore) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// flaky is a receiver that fails a share of all requests at random, in every way that passes.
type flaky struct {
	share float64
	mu    sync.Mutex
	// by Idempotency-Key
	attempts map[string][]flakyAttempt
	out      map[string]int
	twice    int // requests while another one of the same delivery was out
}

type flakyAttempt struct {
	began, ended time.Time
	failed       bool
	asked        time.Duration // by Retry-After
}

// chance is uniform in [0, 1) and depends on nothing but its arguments: whatever the order of requests is, the same ones
// fail.
func chance(key string, attempt int) float64 {
	var seed [32]byte
	copy(seed[:], key[len(key)-31:])
	binary.LittleEndian.PutUint16(seed[30:], uint16(attempt))
	return rand.New(rand.NewChaCha8(seed)).Float64()
}

func (f *flaky) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	key := r.Header.Get("Idempotency-Key")
	f.mu.Lock()
	n := len(f.attempts[key])
	f.attempts[key] = append(f.attempts[key], flakyAttempt{began: time.Now()})
	if f.out[key]++; f.out[key] > 1 {
		f.twice++
	}
	f.mu.Unlock()
	c := chance(key, n) / f.share
	var asked time.Duration
	switch {
	case c >= 1:
		resp, err = respond(200, "")
	case c < .1:
		resp, err = hang(r)
	case c < .3:
		err = io.EOF
	case c < .5:
		asked = 20 * time.Second
		resp, err = respond(429, "", "Retry-After", "20")
	case c < .6:
		asked = 90 * time.Second
		resp, err = respond(503, "", "Retry-After", time.Now().Add(asked).UTC().Format(http.TimeFormat))
	default:
		resp, err = respond(500, "")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out[key]--
	a := &f.attempts[key][n]
	a.ended, a.failed, a.asked = time.Now(), c < 1, asked
	return resp, err
}

// Ten thousand deliveries, two processes, and receivers, too many for a breaker to open, that fail 30 % of all requests at random: each is done in the
// end, its failures are what the receiver counted, no attempt comes before its time or much after it, and there are
// never two at once.
func TestFlakyReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		own := task.Retry{MaxAttempts: 15, Initial: 2 * time.Second, Factor: 2, Max: 5 * time.Minute}
		outbox := &timedStore{records: map[task.ID]*timedRecord{}}
		receiver := &flaky{share: .3, attempts: map[string][]flakyAttempt{}, out: map[string]int{}}
		for i := range n {
			d := delivery(fmt.Sprint("host", i%5000), []task.Trigger{task.TriggerSuccess, task.TriggerFailure, task.TriggerCancel}[i%3])
			d.Source = task.ID{}
			binary.BigEndian.PutUint32(d.Source[12:], uint32(i)+1)
			if i%2 == 0 {
				d.Action.Retry = own
			}
			if i%5 == 0 {
				d.Action.Timeout = time.Minute // longer than the lease of others
			}
			outbox.add(d)
		}
		var processes []*fixture
		for range 2 {
			f := newFixture(t, Options{}, receiver.RoundTrip)
			f.Dispatcher.store = outbox
			f.run(t)
			processes = append(processes, f)
		}
		began := time.Now()
		for outbox.left() > 0 && time.Since(began) < 72*time.Hour {
			time.Sleep(lookEvery)
			for _, f := range processes {
				f.WakeOutbox() // as a look does
			}
		}
		requests, failures := checkFlaky(t, outbox, receiver, own)
		if share := float64(failures) / float64(requests); share < .29 || share > .31 || requests != n+failures || receiver.twice > 0 {
			t.Errorf("%d requests, %d failed, %d while another one was out", requests, failures, receiver.twice)
		}
		counted := map[string]float64{}
		for _, f := range processes {
			for _, trigger := range []string{"end", "cancel"} {
				for _, outcome := range resultNames {
					counted[outcome] += f.count(t, "webhook_requests_total", "trigger", trigger, "outcome", outcome)
				}
			}
		}
		if counted["done"] != n || counted["retry"] != float64(failures) || counted["failed"] != 0 || counted["refused"] != 0 {
			t.Errorf("metrics %v, %d failures", counted, failures)
		}
	})
}

const lookEvery = time.Second

// checkFlaky compares what is recorded with what the receiver saw.
func checkFlaky(t *testing.T, outbox *timedStore, receiver *flaky, own task.Retry) (requests, failures int) {
	for _, r := range outbox.records {
		attempts := receiver.attempts[task.IdempotencyKey(r.Source, r.Trigger, 0)]
		failed := 0
		for _, a := range attempts {
			if a.failed {
				failed++
			}
		}
		if r.state != store.DeliveryDone || r.lastCode != 200 || r.Failures != failed || len(attempts) != failed+1 {
			t.Errorf("%s is in state %d with status %d and %d failures; %d of %d requests failed", r.Source, r.state, r.lastCode,
				r.Failures, failed, len(attempts))
		}
		requests, failures = requests+len(attempts), failures+failed
		ceiling, factor, limit := time.Second, 6, 16*time.Hour
		if r.Action.Retry != (task.Retry{}) {
			ceiling, factor, limit = own.Initial, int(own.Factor), own.Max
		}
		for i := 1; i < len(attempts); i++ {
			pause, asked := attempts[i].began.Sub(attempts[i-1].ended), attempts[i-1].asked
			least, most := max(100*time.Millisecond, asked-time.Second), max(ceiling, asked) // dates have whole seconds
			if pause < least || pause > most+lookEvery {
				t.Errorf("%s: attempt %d after %v, want %v to %v", r.Source, i+1, pause, least, most)
			}
			ceiling = min(limit, ceiling*time.Duration(factor))
		}
	}
	return requests, failures
}

// A delivery that could not begin before half of its lease is over is left to the next claim: the other half is for the
// attempt.
func TestDeliveryBeginsInTime(t *testing.T) {
	t.Parallel()
	causes := map[string]func(f *fixture, wait time.Duration){
		"the claim takes long": func(_ *fixture, wait time.Duration) { time.Sleep(wait) },
		"there is no place": func(f *fixture, wait time.Duration) {
			f.outbox.enter("a", func(bool) {
				time.Sleep(wait)
				f.outbox.leave("a")
			})
		},
		"the host is away": func(f *fixture, wait time.Duration) {
			began := time.Now()
			breakHost(f, "a")
			go func() {
				time.Sleep(time.Until(f.Host("a").NextProbe) + probeTurn/2)
				f.hosts.admit("a") // which is the probe
				time.Sleep(time.Until(began.Add(wait)))
				f.hosts.report("a", present, &answer{})
			}()
		},
	}
	for cause, during := range causes {
		for _, c := range []struct {
			timeout, wait time.Duration
			sent          bool
		}{
			{0, 15*time.Second - time.Millisecond, true}, {0, 15 * time.Second, false}, {0, 90 * time.Second, false},
			{time.Minute, time.Minute - time.Millisecond, true}, {time.Minute, time.Minute, false},
		} {
			t.Run(fmt.Sprint(cause, " for ", c.wait, " of ", c.timeout), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t, Options{HostWindow: 1}, func(*http.Request) (*http.Response, error) { return respond(200, "") })
					d := delivery("a", task.TriggerSuccess)
					d.Action.Timeout = c.timeout
					f.store.due = []store.Delivery{d}
					f.store.during = func() {
						f.store.during = nil
						during(f, c.wait)
					}
					f.run(t)
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					if got := len(f.store.finished()) == 1; got != c.sent {
						t.Errorf("sent %t, want %t", got, c.sent)
					}
					if room := f.outbox.room(); room.Total != 2048 || len(room.Busy) != 0 || f.liveNow() != 0 {
						t.Errorf("it keeps its place: %+v", room)
					}
				})
			})
		}
	}
}

// A delivery whose host is away waits for half of its lease, and no longer.
func TestDeliveryLeavesInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{}, hang)
		f.store.due = []store.Delivery{delivery("a", task.TriggerSuccess)}
		f.store.during = func() {
			f.store.during = nil
			breakHost(f, "a")
		}
		began := time.Now()
		f.run(t)
		synctest.Wait()
		time.Sleep(time.Until(f.Host("a").NextProbe) + probeTurn/2)
		f.hosts.admit("a") // the probe, which does not come back
		for _, c := range []struct {
			after  time.Duration
			queued int
		}{{15*time.Second - time.Millisecond, 1}, {15 * time.Second, 0}} {
			time.Sleep(time.Until(began.Add(c.after)))
			synctest.Wait()
			if got := f.Host("a").Queued; got != c.queued {
				t.Errorf("%d wait after %v, want %d", got, c.after, c.queued)
			}
		}
	})
}

// breakHost opens the breaker of a host.
func breakHost(f *fixture, host string) {
	for range breakAfter {
		f.hosts.admit(host)
	}
	for range breakAfter {
		f.hosts.report(host, absent, &answer{})
	}
}
