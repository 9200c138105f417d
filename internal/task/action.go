package task

import (
	"encoding/json"
	"strconv"
	"time"
)

// Trigger is what makes an action fire. The zero value is none.
type Trigger int16

const (
	TriggerStart         Trigger = iota + 1 // on_start
	TriggerSuccess                          // on_success
	TriggerFailure                          // on_failure
	TriggerCancel                           // the action that on_start's answer brought
	TriggerBatchComplete                    // on_batch_complete, of a batch
)

// Action is one webhook to call.
type Action struct {
	// Verb is as on the wire: Get, Post, Put, Patch or Delete.
	Verb string
	// URL is absolute, http or https.
	URL     string
	Headers map[string]string
	// Body is compact JSON, nil when the action has none.
	Body json.RawMessage
	// Timeout bounds one attempt, with its answer; 0: as long as the server allows by itself. Whole seconds.
	Timeout time.Duration
	// Retry says what is different for this action.
	Retry Retry
}

// Size is about how many bytes it has.
func (a *Action) Size() int {
	n := len(a.URL) + len(a.Body)
	for name, value := range a.Headers {
		n += len(name) + len(value)
	}
	return n
}

// IdempotencyKey is the same for every attempt to deliver one trigger of one task, or of one batch. place counts the
// actions of that trigger from 0.
func IdempotencyKey(id ID, trigger Trigger, place int) string {
	key := id.String()
	switch trigger {
	case TriggerStart:
		key += ":start"
	case TriggerSuccess:
		key += ":end:success"
	case TriggerFailure:
		key += ":end:failure"
	case TriggerCancel:
		key += ":cancel"
	case TriggerBatchComplete:
		key = "batch:" + key + ":complete"
	}
	if place > 0 {
		key += ":" + strconv.Itoa(place)
	}
	return key
}

// Actions are those of t that fire on trigger, in their order.
func (t *Task) Actions(trigger Trigger) []Action {
	switch trigger {
	case TriggerStart:
		return []Action{t.OnStart}
	case TriggerSuccess:
		return t.OnSuccess
	case TriggerFailure:
		return t.OnFailure
	case TriggerCancel:
		return t.OnCancel
	}
	return nil
}
