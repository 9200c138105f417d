package api

// DeliverySummary is a delivery in a list: an end or cancel action of a task that came due, or an action of a batch that is
// complete.
type DeliverySummary struct {
	ID string `json:"id"`
	// TaskID is nil when it is the action of a batch itself.
	TaskID  *string `json:"task_id"`
	BatchID string  `json:"batch_id"`
	// Trigger is End, Cancel or Batch; Condition is Success or Failure with the trigger End, and left out otherwise. Place
	// counts the actions of one trigger from 0.
	Trigger   string `json:"trigger"`
	Condition string `json:"condition,omitempty"`
	Place     int    `json:"place"`
	// IdempotencyKey is what every attempt carries.
	IdempotencyKey string `json:"idempotency_key"`
	// Host is the host and port of its URL.
	Host string `json:"host"`
	// State is pending, done or dead: given up.
	State string `json:"state"`
	// Failures counts the attempts that failed.
	Failures int `json:"failures"`
	// LastStatus is the HTTP status of the last answer, LastError what was wrong last; nil for none.
	LastStatus *int    `json:"last_status"`
	LastError  *string `json:"last_error"`
	CreatedAt  Time    `json:"created_at"`
	// NextAttemptAt is null while it is being sent or a process holds it until its host has room, and when it is not pending.
	NextAttemptAt Time `json:"next_attempt_at"`
}

// Delivery is a delivery with everything about it.
type Delivery struct {
	DeliverySummary
	Params Params `json:"params"`
	// Timeout and Retry are as in [Action].
	Timeout *int64 `json:"timeout,omitempty"`
	Retry   *Retry `json:"retry,omitempty"`
	// Attempts are the newest 100, oldest first.
	Attempts []Attempt `json:"attempts"`
}

// Attempt is a request that was made for a delivery.
type Attempt struct {
	// At is when it began, by the clock of the process that made it.
	At Time `json:"at"`
	// DurationMS is how many milliseconds passed to the end of the answer.
	DurationMS float64 `json:"duration_ms"`
	// Status is that of the answer, Error what was wrong; nil for none.
	Status *int    `json:"status"`
	Error  *string `json:"error"`
	// Answer is how the answer's body begins, up to 1 KiB of it, as text without what looks secret; nil for none.
	Answer *string `json:"answer"`
}

// Retried answers POST /deliveries/retry.
type Retried struct {
	// Retried is how many dead deliveries are sent again.
	Retried int `json:"retried"`
}
