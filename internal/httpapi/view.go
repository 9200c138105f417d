package httpapi

import (
	"encoding/json"
	"slices"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// statusName is the status as clients see it: a claimed task is Pending, and its claimed_at says the rest.
func statusName(s task.Status) string {
	if s == task.Claimed {
		s = task.Pending
	}
	return s.String()
}

func summary(t *task.Task, s *task.State) api.TaskSummary {
	return api.TaskSummary{
		ID: t.ID.String(), LocalID: t.LocalID, BatchID: t.BatchID.String(),
		Name: t.Name, Kind: t.Kind, Status: statusName(s.Status),
		Timeout: int64(t.Timeout / time.Second), Priority: t.Priority,
		Success: s.Success, Failures: s.Failures, ExpectedCount: t.ExpectedCount,
		DeadEndBarrier: t.DeadEndBarrier, FailureReason: orNil(s.FailureReason),
		CreatedAt: at(t.CreatedAt), ClaimedAt: at(s.ClaimedAt), StartedAt: at(s.StartedAt), EndedAt: at(s.EndedAt),
		LastUpdated: at(s.LastUpdated),
	}
}

// fullTask is everything about a task; parent says how the i-th of its dependencies stands.
func fullTask(t *task.Task, s *task.State, deliveries []store.DeliveryRecord, parent func(i int) task.Status) api.Task {
	dependencies := make([]api.Dependency, len(t.Dependencies))
	for i, d := range t.Dependencies {
		dependencies[i] = api.Dependency{
			ID: d.Parent.String(), RequiresSuccess: d.RequiresSuccess, Status: statusName(parent(i)),
		}
	}
	return api.Task{
		TaskSummary: summary(t, s), Metadata: t.Metadata, Rules: rules(t.Rules),
		Actions: actions(t, s, deliveries), Dependencies: dependencies,
	}
}

func rules(rules []task.Rule) []json.RawMessage {
	list := make([]json.RawMessage, 0, len(rules))
	if len(rules) == 0 {
		return list
	}
	for _, rule := range jsonread.Root(task.MarshalRules(rules)).Elements {
		list = append(list, rule.Raw())
	}
	return list
}

// triggers say how each is called on the wire.
var triggers = []struct {
	trigger         task.Trigger
	name, condition string
}{
	{task.TriggerStart, "Start", ""},
	{task.TriggerSuccess, "End", "Success"},
	{task.TriggerFailure, "End", "Failure"},
	{task.TriggerCancel, "Cancel", ""},
}

func actions(t *task.Task, s *task.State, deliveries []store.DeliveryRecord) []api.Action {
	list := make([]api.Action, 0, 1+len(t.OnSuccess)+len(t.OnFailure)+len(t.OnCancel))
	for _, trigger := range triggers {
		for place, action := range t.Actions(trigger.trigger) {
			a := api.Action{
				Kind: "Webhook", Trigger: trigger.name, Condition: trigger.condition,
				Params: api.Params{URL: action.URL, Verb: action.Verb, Headers: action.Headers, Body: action.Body},
			}
			if trigger.trigger == task.TriggerStart {
				a.Failures, a.LastStatus, a.LastError = s.StartFailures, orNil(s.StartStatus), orNil(s.StartError)
			} else if d := delivery(deliveries, trigger.trigger, place); d != nil {
				a.Failures, a.LastStatus, a.LastError = d.Failures, orNil(d.LastStatus), orNil(d.LastError)
			}
			list = append(list, a)
		}
	}
	return list
}

func delivery(records []store.DeliveryRecord, trigger task.Trigger, place int) *store.DeliveryRecord {
	i := slices.IndexFunc(records, func(d store.DeliveryRecord) bool { return d.Trigger == trigger && d.Place == place })
	if i < 0 {
		return nil
	}
	return &records[i]
}

func at(t time.Time) api.Time { return api.Time{Time: t} }

// orNil is nil for the zero value, which means none.
func orNil[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}
