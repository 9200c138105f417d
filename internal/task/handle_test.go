package task

import (
	"errors"
	"testing"
	"time"
)

func TestHandleDead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	running := State{Status: Running, Attempt: 2, ClaimedAt: now, StartedAt: now}
	ended := func(ago time.Duration) State { return State{Status: Success, Attempt: 2, EndedAt: now.Add(-ago)} }
	for name, test := range map[string]struct {
		state   State
		attempt int
		dead    bool
	}{
		"at work":                 {running, 2, false},
		"an earlier attempt":      {running, 1, false},
		"of no attempt":           {running, 0, false},
		"a later attempt":         {running, 3, true},
		"not started":             {State{Status: Pending}, 0, false},
		"ended now":               {ended(0), 2, false},
		"ended just long enough":  {ended(time.Hour), 2, false},
		"ended a moment too long": {ended(time.Hour + 1), 2, true},
		"set back":                {State{Status: Pending}, 1, true},
	} {
		h := Handle{Attempt: test.attempt, Grace: time.Hour}
		if got := h.Dead(&test.state, now); got != test.dead {
			t.Errorf("%s: dead %t", name, got)
		}
		// And what it does then: nothing.
		for _, kind := range []OutcomeKind{Update, Count} {
			s := test.state
			_, err := Apply(&s, nil, &Outcome{Kind: kind, NewSuccess: 1, Handle: &h}, now)
			refusal, is := errors.AsType[*Refusal](err)
			if unauthorized := is && refusal.Code == Unauthorized; unauthorized != test.dead || unauthorized && s != test.state {
				t.Errorf("%s: %v, and the task is %+v", name, err, s)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	if r := Missing(&Outcome{}); r.Code != NotFound {
		t.Errorf("%+v", r)
	}
	if r := Missing(&Outcome{Handle: &Handle{}}); r.Code != Unauthorized || r.Message != "" {
		t.Errorf("%+v", r)
	}
}
