package api

import "encoding/json"

// TaskSummary is a task in a list.
type TaskSummary struct {
	ID      string `json:"id"`
	LocalID string `json:"local_id"` // the id that its request gave it
	BatchID string `json:"batch_id"`
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Status  string `json:"status"`
	// Timeout is how many seconds it may go without activity while Running.
	Timeout int64 `json:"timeout"`
	// Priority is from -1000 to 1000; higher starts first.
	Priority int `json:"priority"`
	// Success and Failures are the sums of the counts that its worker reported.
	Success  int64 `json:"success"`
	Failures int64 `json:"failures"`
	// ExpectedCount is how much work it announced; nil when it did not.
	ExpectedCount  *int64 `json:"expected_count"`
	DeadEndBarrier bool   `json:"dead_end_barrier"`
	// FailureReason is nil unless somebody gave one.
	FailureReason *string `json:"failure_reason"`
	CreatedAt     Time    `json:"created_at"`
	// ClaimedAt, StartedAt and EndedAt are null until it was picked, its on_start was accepted, it ended.
	ClaimedAt Time `json:"claimed_at"`
	StartedAt Time `json:"started_at"`
	EndedAt   Time `json:"ended_at"`
	// LastUpdated is its last activity, from which the time-out runs.
	LastUpdated Time `json:"last_updated"`
}

// Task is a task with everything about it.
type Task struct {
	TaskSummary
	// Metadata is an object.
	Metadata json.RawMessage `json:"metadata"`
	// Rules have the dialect and the spelling in which they were sent.
	Rules []json.RawMessage `json:"rules"`
	// Actions are those of on_start, on_success, on_failure and on cancel, in this order.
	Actions      []Action     `json:"actions"`
	Dependencies []Dependency `json:"dependencies"`
}

// Action is a webhook of a task or a batch, and what became of calling it.
type Action struct {
	Kind string `json:"kind"` // Webhook
	// Trigger is Start, End or Cancel; Batch for an action of a batch.
	Trigger string `json:"trigger"`
	// Condition is Success or Failure with the trigger End, and left out otherwise.
	Condition string `json:"condition,omitempty"`
	Params    Params `json:"params"`
	// Timeout is how many seconds one attempt may take, Retry how often and when it is sent again. Both are left out where
	// the action does not say.
	Timeout *int64 `json:"timeout,omitempty"`
	Retry   *Retry `json:"retry,omitempty"`
	// ID is that of its delivery; nil until it comes due, and for Start, which is no delivery.
	ID *string `json:"id"`
	// State is pending, done or dead: given up; nil until it comes due.
	State *string `json:"state"`
	// Failures counts the attempts that failed.
	Failures int `json:"failures"`
	// LastStatus is the HTTP status of the last answer, LastError what was wrong last; nil for none.
	LastStatus *int    `json:"last_status"`
	LastError  *string `json:"last_error"`
	// NextAttemptAt is when it is sent, now or again; null while it is being sent or a process holds it until its host has
	// room, when it is not pending, and for Start, of which only the process that sends it knows: see [StartState].
	NextAttemptAt Time `json:"next_attempt_at"`
}

// Retry is a retry policy. What is left out is as the server has it for actions of that trigger.
type Retry struct {
	// MaxAttempts is how often it is sent in all; 1: it is not sent again.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// Initial and Max are in seconds, with up to three decimal places: the pause after the first failure may be as long as
	// Initial, and after each further one Factor times as long, up to Max.
	Initial float64 `json:"initial,omitempty"`
	Factor  float64 `json:"factor,omitempty"`
	Max     float64 `json:"max,omitempty"`
}

// Params say what an action sends, and where.
type Params struct {
	URL string `json:"url"`
	// Verb is Get, Post, Put, Patch or Delete.
	Verb string `json:"verb"`
	// Headers and Body are left out when there are none. Answers have "•••" for the values of headers that may be secret;
	// requests must not.
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
}

// Dependency is a task that another one waits for.
type Dependency struct {
	ID string `json:"id"`
	// RequiresSuccess: it must end in Success; otherwise it only has to end.
	RequiresSuccess bool   `json:"requires_success"`
	Status          string `json:"status"`
}

// CreatedTask is what a create with "Prefer: return=minimal" answers for each task, in request order.
type CreatedTask struct {
	ID      string `json:"id"`
	LocalID string `json:"local_id"`
}

// TaskState answers PATCH, DELETE, pause and resume: the task after it.
type TaskState struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Success  int64  `json:"success"`
	Failures int64  `json:"failures"`
	// FailureReason is left out when there is none.
	FailureReason string `json:"failure_reason,omitempty"`
	LastUpdated   Time   `json:"last_updated"`
}

// Updates answers PATCH of an array. What was applied is durable.
type Updates struct {
	// Results stand in the order of the request, one for each of its elements.
	Results []UpdateResult `json:"results"`
}

// UpdateResult is what became of one element.
type UpdateResult struct {
	ID string `json:"id"`
	// Status is the HTTP status that the element alone would have had: 200, or 400, 404 or 409, and it changed nothing.
	Status int `json:"status"`
	// Task is the task after it; left out when it was refused.
	Task *TaskState `json:"task,omitempty"`
	// Error and Details say why it was refused, as in [Problem]; left out otherwise, Details also when Error says everything.
	Error   string   `json:"error,omitempty"`
	Details []string `json:"details,omitempty"`
}

// Counts answers PUT: the counts are durable.
type Counts struct {
	// Applied is how many elements of the request were applied.
	Applied int `json:"applied"`
	// Unknown are the ids that name no task, each once, in the order of the request.
	Unknown []string `json:"unknown"`
}
