package task

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHistory(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC) }
	step := func(second int, from Status, cause Cause, to Status) Step {
		return Step{at(second), Transition{from, cause, to}}
	}
	tests := []struct {
		name    string
		parents bool
		state   State
		written []Step
		want    []Step
	}{
		{"new", false, State{Status: Pending}, nil, []Step{step(0, 0, Created, Pending)}},
		{"waits", true, State{Status: Waiting}, nil, []Step{step(0, 0, Created, Waiting)}},
		{
			"everything in one moment", true,
			State{Status: Success, ClaimedAt: at(1), StartedAt: at(2), EndedAt: at(2)},
			[]Step{step(1, 0, DependenciesMet, Pending)},
			[]Step{
				step(0, 0, Created, Waiting), step(1, Waiting, DependenciesMet, Pending), step(1, Pending, ClaimedBySchedule, Claimed),
				step(2, Claimed, StartAccepted, Running), step(2, Running, Finished, Success),
			},
		},
		{
			"ended before on_start was answered", false,
			State{Status: Failure, ClaimedAt: at(1), StartedAt: at(1), EndedAt: at(3)}, nil,
			[]Step{step(0, 0, Created, Pending), step(1, Pending, ClaimedBySchedule, Claimed), step(3, Claimed, Finished, Failure)},
		},
		{
			"accepted while paused", false, State{Status: Running, ClaimedAt: at(1), StartedAt: at(3)},
			[]Step{step(2, 0, PausedByClient, Paused), step(4, 0, ResumedByClient, Running)},
			[]Step{
				step(0, 0, Created, Pending), step(1, Pending, ClaimedBySchedule, Claimed), step(2, Claimed, PausedByClient, Paused),
				step(3, Paused, StartAccepted, Paused), step(4, Paused, ResumedByClient, Running),
			},
		},
		{
			"an end that was written down is told once", false,
			State{Status: Canceled, ClaimedAt: at(1), EndedAt: at(2)}, []Step{step(2, 0, CanceledByClient, Canceled)},
			[]Step{step(0, 0, Created, Pending), step(1, Pending, ClaimedBySchedule, Claimed), step(2, Claimed, CanceledByClient, Canceled)},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, History(at(0), test.parents, &test.state, test.written)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
