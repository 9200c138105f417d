package store

import (
	"fmt"
	"time"

	"taskrunner/internal/task"
)

// Lease is how long d is kept from other processes when it is claimed: least, or twice as long as its action says that
// an attempt may take.
func (d *Delivery) Lease(least time.Duration) time.Duration { return max(least, 2*d.Action.Timeout) }

// DeliveredAction is what a delivery sends, out of the actions that are stored with its source. c is what the source came to,
// if it is a batch.
func DeliveredAction(actions []byte, trigger task.Trigger, place int, c *task.Completion) (task.Action, error) {
	list, err := task.ParseActions(actions)
	if err == nil && place >= len(list) {
		err = fmt.Errorf("there are %d", len(list))
	}
	if err != nil {
		return task.Action{}, fmt.Errorf("action %d of trigger %d: %w", place, trigger, err)
	}
	a := list[place]
	if trigger == task.TriggerBatchComplete {
		a.Body = c.Body(a.Body)
	}
	return a, nil
}

// Repeated names the deliveries that may have more than KeptAttempts attempts now: some that failed again.
func Repeated(attempts []Attempt) []task.ID {
	var ids []task.ID
	for i := range attempts {
		if attempts[i].Error != "" {
			ids = append(ids, attempts[i].Delivery)
		}
	}
	return ids
}

// Of says whose delivery d is: a task's, or a batch's.
func (d *DeliveryItem) Of(source task.ID) {
	if d.Trigger == task.TriggerBatchComplete {
		d.Batch = source
	} else {
		d.Task = source
	}
}
