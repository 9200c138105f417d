package api

import "encoding/json"

// Batch sums up what one request created.
type Batch struct {
	BatchID string `json:"batch_id"`
	// Requester is left out when the request did not say who made it.
	Requester string `json:"requester,omitempty"`
	// Scope is left out when it has none. Metadata is an object.
	Scope         string          `json:"scope,omitempty"`
	Metadata      json.RawMessage `json:"metadata"`
	CreatedAt     Time            `json:"created_at"`
	TotalTasks    int             `json:"total_tasks"`
	TotalSuccess  int64           `json:"total_success"`
	TotalFailures int64           `json:"total_failures"`
	// TotalExpected is nil as soon as one task has no expected_count.
	TotalExpected *int64       `json:"total_expected"`
	StatusCounts  StatusCounts `json:"status_counts"`
	// Actions are those of on_batch_complete.
	Actions []Action `json:"actions"`
}

// BatchSummary is a batch in a list.
type BatchSummary struct {
	BatchID string `json:"batch_id"`
	// Requester and Scope are left out when there are none. Metadata is an object.
	Requester      string          `json:"requester,omitempty"`
	Scope          string          `json:"scope,omitempty"`
	Metadata       json.RawMessage `json:"metadata"`
	TotalTasks     int             `json:"total_tasks"`
	FirstCreatedAt Time            `json:"first_created_at"`
	// LatestUpdatedAt is the last activity of any of its tasks.
	LatestUpdatedAt Time         `json:"latest_updated_at"`
	StatusCounts    StatusCounts `json:"status_counts"`
	// Kinds are those of its tasks, each once, sorted.
	Kinds []string `json:"kinds"`
}

// StoppedBatch answers DELETE of a batch: how many tasks it canceled, by the status in which they were.
type StoppedBatch struct {
	BatchID         string `json:"batch_id"`
	CanceledWaiting int    `json:"canceled_waiting"`
	CanceledPending int    `json:"canceled_pending"`
	CanceledClaimed int    `json:"canceled_claimed"`
	CanceledRunning int    `json:"canceled_running"`
	CanceledPaused  int    `json:"canceled_paused"`
	// AlreadyTerminal had ended before, or while the others were canceled.
	AlreadyTerminal int `json:"already_terminal"`
}

// StatusCounts is how many tasks are in each status. Claimed is apart from Pending here.
type StatusCounts struct {
	Waiting  int `json:"waiting"`
	Pending  int `json:"pending"`
	Claimed  int `json:"claimed"`
	Running  int `json:"running"`
	Success  int `json:"success"`
	Failure  int `json:"failure"`
	Paused   int `json:"paused"`
	Canceled int `json:"canceled"`
}

// RulesEdited answers PATCH /batch/{id}/rules.
type RulesEdited struct {
	BatchID string `json:"batch_id"`
	Kind    string `json:"kind"`
	// UpdatedCount counts the tasks that have the new rules. Those that had ended are not among them.
	UpdatedCount int `json:"updated_count"`
}

// DAG is a batch as a graph.
type DAG struct {
	// Tasks stand in request order.
	Tasks []TaskSummary `json:"tasks"`
	Links []Link        `json:"links"`
}

// Link says that a child depends on a parent.
type Link struct {
	ParentID        string `json:"parent_id"`
	ChildID         string `json:"child_id"`
	RequiresSuccess bool   `json:"requires_success"`
}
