package httpapi

import (
	"encoding/json"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// statusName is the status as clients see it.
func statusName(s task.Status) string { return s.Shown().String() }

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

// triggerName is the trigger on the wire, with its condition.
func triggerName(trigger task.Trigger) (name, condition string) {
	for _, t := range triggers {
		if t.trigger == trigger {
			return t.name, t.condition
		}
	}
	return "Batch", ""
}

// deliveryStates say how each is called on the wire.
var deliveryStates = []string{store.DeliveryPending: "pending", store.DeliveryDone: "done", store.DeliveryDead: "dead"}

func actions(t *task.Task, s *task.State, deliveries []store.DeliveryRecord) []api.Action {
	list := make([]api.Action, 0, 1+len(t.OnSuccess)+len(t.OnFailure)+len(t.OnCancel))
	for _, trigger := range triggers {
		for place, action := range t.Actions(trigger.trigger) {
			a := webhook(&action, deliveries, trigger.trigger, place)
			a.Trigger, a.Condition = trigger.name, trigger.condition
			if trigger.trigger == task.TriggerStart {
				a.Failures, a.LastStatus, a.LastError = s.StartFailures, orNil(s.StartStatus), orNil(s.StartError)
				a.State = orNil(deliveryStates[startState(s)])
			}
			list = append(list, a)
		}
	}
	return list
}

// batchActions are those of a batch itself.
func batchActions(b *store.BatchSummary) []api.Action {
	list := make([]api.Action, 0, len(b.OnComplete))
	for place := range b.OnComplete {
		a := webhook(&b.OnComplete[place], b.Deliveries, task.TriggerBatchComplete, place)
		a.Trigger, _ = triggerName(task.TriggerBatchComplete)
		list = append(list, a)
	}
	return list
}

// startState is how on_start stands; 0: it is not due, or was not told to the end.
func startState(s *task.State) store.DeliveryState {
	switch {
	case !s.StartedAt.IsZero():
		return store.DeliveryDone
	case s.ClaimedAt.IsZero():
		return 0
	case !s.Status.Terminal():
		return store.DeliveryPending
	case s.Status == task.Failure && s.StartFailures > 0:
		return store.DeliveryDead
	}
	return 0
}

// webhook is an action with what its deliveries came to.
func webhook(a *task.Action, records []store.DeliveryRecord, trigger task.Trigger, place int) api.Action {
	shown := api.Action{
		Kind: "Webhook", Params: params(a), Timeout: orNil(int64(a.Timeout / time.Second)), Retry: retry(a.Retry),
	}
	for i := range records {
		if d := &records[i]; d.Trigger == trigger && d.Place == place {
			shown.ID, shown.State, shown.NextAttemptAt = new(d.ID.String()), new(deliveryStates[d.State]), at(d.NextAt)
			shown.Failures, shown.LastStatus, shown.LastError = d.Failures, orNil(d.LastStatus), orNil(d.LastError)
		}
	}
	return shown
}

// retry is nil where nothing was said.
func retry(r task.Retry) *api.Retry {
	return orNil(api.Retry{
		MaxAttempts: r.MaxAttempts, Initial: task.Seconds(r.Initial), Factor: r.Factor, Max: task.Seconds(r.Max),
	})
}

func params(a *task.Action) api.Params {
	return api.Params{URL: a.URL, Verb: a.Verb, Headers: task.ShownHeaders(a.Headers), Body: a.Body}
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
