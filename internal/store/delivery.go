package store

import (
	"fmt"
	"time"

	"taskrunner/internal/task"
)

// Lease is how long d is kept from other processes when it is claimed: least, or twice as long as its action says that
// an attempt may take.
func (d *Delivery) Lease(least time.Duration) time.Duration { return max(least, 2*d.Action.Timeout) }

// Load gives d its action out of those that are stored with its source. c is what the source came to, if it is a batch.
func (d *Delivery) Load(actions []byte, c *task.Completion) error {
	list, err := task.ParseActions(actions)
	if err == nil && d.Place >= len(list) {
		err = fmt.Errorf("there are %d", len(list))
	}
	if err != nil {
		return fmt.Errorf("action %d of trigger %d of %s: %w", d.Place, d.Trigger, d.Source, err)
	}
	d.Action = list[d.Place]
	if d.Trigger == task.TriggerBatchComplete {
		d.Action.Body = c.Body(d.Action.Body)
	}
	return nil
}
