package api

import "encoding/json"

// Explanation is why a task does not run, or that it does, all as of one moment.
type Explanation struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	// At is the moment, by the database's clock.
	At Time `json:"at"`
	// Sentence says it all in one, for people.
	Sentence string `json:"sentence"`
	// ToStart is what has to happen before it starts; empty when nothing has to, or when it has started.
	ToStart []string `json:"to_start"`
	Unmet   Unmet    `json:"unmet"`
	// Rules stand in the order of the task's.
	Rules []RuleState `json:"rules"`
	Host  HostState   `json:"host"`
	// Start is how its on_start goes; nil unless it was claimed and on_start has not been accepted yet.
	Start *StartState `json:"start"`
	// Deadline is when it times out without another report; null unless it is Running.
	Deadline Time `json:"deadline"`
}

// Unmet are the dependencies that have not ended.
type Unmet struct {
	Count int `json:"count"`
	// Tasks are the first 100 of them.
	Tasks []UnmetTask `json:"tasks"`
}

// UnmetTask is a dependency that has not ended.
type UnmetTask struct {
	ID              string `json:"id"`
	Name            string `json:"name"`
	Status          string `json:"status"`
	RequiresSuccess bool   `json:"requires_success"`
}

// Gate is what a rule limits: tasks of a kind in a status, with these values in these fields.
type Gate struct {
	// Type is Concurency, or Capacity: then it is the work that the tasks have left.
	Type   string   `json:"type"`
	Kind   string   `json:"kind"`
	Status string   `json:"status"`
	Fields []string `json:"fields"` // sorted
	// Values are those of the fields, by their names.
	Values map[string]json.RawMessage `json:"values"`
}

// RuleState is how a rule of a task stands.
type RuleState struct {
	// Rule has the dialect and the spelling in which it was sent.
	Rule json.RawMessage `json:"rule"`
	Gate Gate            `json:"gate"`
	// Used is how many tasks are counted: those that hold a slot, or are in the status of the gate. Load is the work that
	// they have left, of Capacity. One of them is nil, both while the rule is so new that nobody has counted.
	Used *int `json:"used"`
	Load *int `json:"load"`
	Max  int  `json:"max"`
	// HoldsBack: the task could not start now because of this rule.
	HoldsBack bool `json:"holds_back"`
	// Holders are the ids of up to 20 tasks that are counted.
	Holders []string `json:"holders"`
	// Place is where it stands in the queue; nil unless it is in that of this gate.
	Place *Place `json:"place"`
}

// Place is one in a queue, from 1. With MoreThan there are more than Number tasks in front: they are not all counted.
type Place struct {
	Number   int  `json:"number"`
	MoreThan bool `json:"more_than"`
}

// HostState is how the target of a task's on_start stands, as far as the process knows that was asked.
type HostState struct {
	// Name is the host and port of on_start's URL.
	Name string `json:"name"`
	// InFlight requests of this process are on their way to it; Queued ones are claimed and wait. Window is how many on_starts
	// may be claimed.
	InFlight int `json:"in_flight"`
	Queued   int `json:"queued"`
	Window   int `json:"window"`
	// Place is where the task stands in the line for it; nil unless it is in it.
	Place *Place `json:"place"`
	// Breaker keeps requests away from it while it is not there.
	Breaker Breaker `json:"breaker"`
}

// StartState is how the on_start of a claimed task goes.
type StartState struct {
	ClaimedAt Time `json:"claimed_at"`
	// Attempt is more than 1 after a process died that had claimed it.
	Attempt int `json:"attempt"`
	// Failures counts the requests that failed, as far as the process knows that was asked.
	Failures   int     `json:"failures"`
	LastStatus *int    `json:"last_status"`
	LastError  *string `json:"last_error"`
}

// Limit is a gate in use: some task is counted there, or waits for it.
type Limit struct {
	// ID is a number that does not fit into every program's numbers.
	ID string `json:"id"`
	Gate
	// Used is how many tasks are counted; Load is the work that they have left, of Capacity. One of them is nil.
	Used *int `json:"used"`
	Load *int `json:"load"`
	// Max is the smallest limit among those who wait; nil when nobody does.
	Max *int `json:"max"`
	// Waiting counts the tasks that wait there, up to 1000; with WaitingMore there are more.
	Waiting     int  `json:"waiting"`
	WaitingMore bool `json:"waiting_more"`
}
