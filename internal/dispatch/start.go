package dispatch

import (
	"fmt"
	"strconv"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Start sends the on_start of every claim and settles what comes of it. It does not block. Claims beyond [Dispatcher.Room]
// wait for their turn. After [Dispatcher.Drain] they are left to whoever takes them over.
func (d *Dispatcher) Start(claims []store.Claim) {
	for i := range claims {
		c := &claims[i]
		d.starts.enter(c.Host, func(waited bool) { d.start(c, waited) })
	}
}

func (d *Dispatcher) start(c *store.Claim, waited bool) {
	if !d.begin() {
		d.starts.leave(c.Host)
		return
	}
	defer d.end(1)
	o, ok := d.deliverStart(c, waited)
	d.starts.leave(c.Host)
	if ok {
		d.persist(&d.settling, func() error {
			_, err := d.settler.Settle(d.work, o)
			return err
		})
	}
}

// deliverStart makes all attempts. It is false when sending ends before there is an outcome, or none is wanted any more.
// queued: c has waited for its turn, as those do that are taken over from a process that had more places.
func (d *Dispatcher) deliverStart(c *store.Claim, queued bool) (task.Outcome, bool) {
	request := call{id: c.ID, host: c.Host, trigger: task.TriggerStart, attempt: c.Attempt, action: &c.Action, keep: true}
	o := task.Outcome{ID: c.ID, Kind: task.Started, Attempt: c.Attempt}
	began := time.Now()
	defer d.failing.forget(&o)
	for look := queued; ; look = true {
		asked := time.Now()
		waited, ok := d.admit(d.starts, c.Host, time.Time{})
		if !ok {
			return o, false
		}
		began = began.Add(time.Since(asked)) // the wait for the host is no attempt's
		if (look || waited) && !d.awaitsStart(c) {
			d.hosts.report(c.Host, nothingKnown, &answer{})
			return o, false
		}
		a, verdict := d.attempt(&request)
		o.StartStatus, o.StartError = a.status, a.text
		switch verdict {
		case 0:
			return o, false
		case Done:
			d.metrics.start.requests[resultDone].Inc()
			o.OnCancel = d.cancelAction(c, a.body)
			return o, true
		}
		if verdict == Retry && a.down { // that is the host's failure, and it is sent again when the host is there
			d.metrics.start.requests[resultRetry].Inc()
			continue
		}
		o.StartFailures++
		d.failing.remember(&o)
		pause, more := d.after(&request, &a, verdict, failed{failures: o.StartFailures, since: time.Since(began)})
		if !more {
			o.Kind = task.StartFailed
			o.FailureReason = failureReason(&a, o.StartFailures)
			return o, true
		}
		d.starts.pause(c.Host)
		sleep(pause, d.stopping, nil)
		if !d.starts.resume(c.Host, d.stopping) {
			return o, false
		}
	}
}

// awaitsStart looks whether a claim is still to be started before its on_start is sent again: the task may have ended
// meanwhile. If the database does not tell, it is.
func (d *Dispatcher) awaitsStart(c *store.Claim) bool {
	found, err := d.store.Task(d.work, c.ID)
	return err != nil || found.State.AwaitsStart(c.Attempt)
}

func failureReason(a *answer, attempts int) string {
	what := a.text
	if a.err == nil {
		what = strconv.Itoa(a.status)
	}
	plural := "s"
	if attempts == 1 {
		plural = ""
	}
	return fmt.Sprintf("on_start failed after %d attempt%s: %s", attempts, plural, what)
}

// cancelAction is what the answer asks to call when the task is canceled. One that cannot be used does no harm to the
// task.
func (d *Dispatcher) cancelAction(c *store.Claim, body []byte) []task.Action {
	if len(body) == 0 {
		return nil
	}
	action, found, err := task.ParseAnswer(body, d.guard.CheckURL)
	if err != nil {
		d.metrics.cancelActionsIgnored.Inc()
		d.log.Warn("ignore the cancel action in the answer to on_start", "task", c.ID, "error", err)
	}
	if err != nil || !found {
		return nil
	}
	return []task.Action{action}
}
