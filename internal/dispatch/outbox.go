package dispatch

import (
	"context"
	"sync"
	"time"

	"taskrunner/internal/store"
)

// maxFinish bounds the attempts that are recorded at once.
const maxFinish = 1000

// WakeOutbox hints that there are deliveries to send. It does not block.
func (d *Dispatcher) WakeOutbox() { signal(d.hint) }

// Run sends what is due in the outbox, at once and then on hints, until ctx ends or [Dispatcher.Drain] is called, and returns
// nil then. Sends that are out by then go on.
func (d *Dispatcher) Run(ctx context.Context) error {
	pause := minStorePause
	for {
		more, again, err := d.claimDeliveries(ctx)
		d.claiming.report(ctx, err)
		if err != nil {
			if !sleep(pause, ctx.Done(), d.stopping) {
				return nil
			}
			pause = min(2*pause, maxStorePause)
			continue
		}
		pause = minStorePause
		if again {
			signal(d.hint)
		}
		var room chan struct{}
		if more {
			room = d.roomFree
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.stopping:
			return nil
		case <-d.hint:
		case <-room:
		}
	}
}

// claimDeliveries claims once and sends what it got. more: others are due as soon as there is room; again: that has
// come true meanwhile, without another signal.
func (d *Dispatcher) claimDeliveries(ctx context.Context) (more, again bool, err error) {
	room := d.outbox.room()
	if room.Total == 0 {
		return true, false, nil
	}
	began := time.Now()
	claimed, err := d.store.ClaimDeliveries(ctx, store.ClaimDeliveriesParams{Room: room, Lease: d.lease})
	if err != nil {
		return false, false, err
	}
	for i := range claimed.Deliveries {
		dl := &claimed.Deliveries[i]
		room.Take(dl.Host)
		// The other half is for the attempt: it is over before the lease is.
		until := began.Add(dl.Lease(d.lease) / 2)
		d.outbox.enter(dl.Host, func(bool) { d.deliver(dl, until) })
	}
	if !claimed.More {
		return false, false, nil
	}
	n := len(claimed.Deliveries)
	return true, room.Eased(d.outbox.room()) || n > 0 && !room.Short() || n > 1 && n >= room.Total, nil
}

// deliver makes an attempt if it can begin until then. If not, the delivery is claimed again when its lease has run out.
func (d *Dispatcher) deliver(dl *store.Delivery, until time.Time) {
	if !d.begin() {
		d.outbox.leave(dl.Host)
		return
	}
	request := call{id: dl.Source, host: dl.Host, trigger: dl.Trigger, place: dl.Place, action: &dl.Action}
	if _, ok := d.admit(d.outbox, dl.Host, until); !ok {
		d.outbox.leave(dl.Host)
		d.end(1)
		return
	}
	a, verdict := d.attempt(&request)
	d.outbox.leave(dl.Host)
	if verdict == 0 {
		d.end(1)
		return
	}
	r := store.Attempt{Delivery: dl.ID, State: store.DeliveryDone, AttemptRecord: store.AttemptRecord{
		At: a.began, Took: a.took, Status: a.status, Error: a.text, Answer: request.excerpt(a.body),
	}}
	m := d.metrics.of(dl.Trigger)
	if verdict == Done {
		m.requests[resultDone].Inc()
	} else if pause, again := d.after(&request, &a, verdict, failed{failures: dl.Failures - dl.EarlierFailures + 1}); again {
		r.State, r.Retry = store.DeliveryPending, pause
	} else {
		r.State = store.DeliveryDead
		m.dead.Inc()
		d.log.Warn("give up a webhook", "delivery", dl.ID, sourceName(dl.Trigger), dl.Source, "trigger", triggerName(dl.Trigger), "place", dl.Place,
			"attempts", dl.Failures+1, "error", a.text)
	}
	d.finish(r)
}

// finished gathers attempts to record: while some are written the next gather.
type finished struct {
	mu       sync.Mutex
	attempts []store.Attempt
	writing  bool
}

func (d *Dispatcher) finish(a store.Attempt) {
	f := &d.finished
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts = append(f.attempts, a)
	if !f.writing {
		f.writing = true
		go d.writeFinished()
	}
}

// writeFinished records until there is nothing left.
func (d *Dispatcher) writeFinished() {
	f := &d.finished
	for {
		f.mu.Lock()
		n := min(len(f.attempts), maxFinish)
		attempts := f.attempts[:n:n]
		if f.attempts = f.attempts[n:]; n == 0 {
			f.attempts, f.writing = nil, false
		}
		f.mu.Unlock()
		if n == 0 {
			return
		}
		d.persist(&d.finishing, func() error { return d.store.FinishDeliveries(d.work, attempts) })
		d.end(n)
	}
}
