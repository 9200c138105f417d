package task

import (
	"strconv"
	"time"

	"taskrunner/internal/jsonread"
)

// Limits of how an action is sent.
const (
	MaxActionTimeout = time.Minute
	MaxAttempts      = 100
	MinRetryPause    = time.Millisecond
	MaxRetryPause    = 24 * time.Hour
	// MaxStartRetryPause is that of on_start, whose task keeps its slots meanwhile: others wait for them.
	MaxStartRetryPause = 10 * time.Minute
	MaxRetryFactor     = 100
)

// Retry says how often an action is sent, and how long the pauses between its attempts may be: Initial after the first
// failure, Factor times as long after each further one, but no longer than Max. A member that is 0 was left out:
// another policy says what it is, see [Retry.Or]. Durations are whole milliseconds, and Factor has up to three decimal
// places, so that what was asked for is what is kept and shown.
type Retry struct {
	MaxAttempts int // in all; 1: it is not sent again
	Initial     time.Duration
	Factor      float64
	Max         time.Duration
}

// DefaultRetry is the policy of actions that fire on trigger where nothing else is said: for on_start three attempts
// within 3 s. For others ten, and as a pause is on average half as long as it may be, within about a day: 24 h on
// average, and two days at most.
func DefaultRetry(trigger Trigger) Retry {
	if trigger == TriggerStart {
		return Retry{MaxAttempts: 3, Initial: time.Second, Factor: 2, Max: 2 * time.Second}
	}
	return Retry{MaxAttempts: 10, Initial: time.Second, Factor: 6, Max: 16 * time.Hour}
}

// Or takes from other what r leaves out. The result has Initial ≤ Max if that is so of either: what r says counts.
func (r Retry) Or(other Retry) Retry {
	if r.MaxAttempts == 0 {
		r.MaxAttempts = other.MaxAttempts
	}
	if r.Factor == 0 {
		r.Factor = other.Factor
	}
	switch {
	case r.Initial == 0 && r.Max == 0:
		r.Initial, r.Max = other.Initial, other.Max
	case r.Initial == 0:
		r.Initial = min(other.Initial, r.Max)
	case r.Max == 0:
		r.Max = max(other.Max, r.Initial)
	}
	return r
}

const (
	fieldMaxAttempts = iota
	fieldInitial
	fieldFactor
	fieldMax
	retryFieldCount
)

var retryFields = []string{"max_attempts", "initial", "factor", "max"}

// ParseRetry reads the wire form of a policy for actions that fire on trigger: an object of which any member may be left
// out. The error is [Problems].
func ParseRetry(raw []byte, trigger Trigger) (Retry, error) {
	if err := jsonread.Check(raw, ""); err != nil {
		return Retry{}, err
	}
	p := newParser("")
	r := p.retry("", jsonread.Root(raw), trigger)
	return r, p.Err()
}

// retry reads a policy; left out it is all zero. name is empty for the place itself.
func (p *parser) retry(name string, v jsonread.Value, trigger Trigger) (r Retry) {
	if name != "" {
		if v.IsNull() {
			return r
		}
		p.Enter(name)
		defer p.Leave()
	}
	var f [retryFieldCount]jsonread.Value
	if !p.Fields(v, retryFields, f[:]) {
		return r
	}
	if v := f[fieldMaxAttempts]; !v.IsNull() {
		n, _ := p.IntBetween("max_attempts", v, 1, MaxAttempts)
		r.MaxAttempts = int(n)
	}
	longest := MaxRetryPause
	if trigger == TriggerStart {
		longest = MaxStartRetryPause
	}
	pause := func(name string, v jsonread.Value) time.Duration {
		if v.IsNull() {
			return 0
		}
		n, _ := p.MilliBetween(name, v, MinRetryPause.Milliseconds(), longest.Milliseconds())
		return time.Duration(n) * time.Millisecond
	}
	r.Initial, r.Max = pause("initial", f[fieldInitial]), pause("max", f[fieldMax])
	if r.Max != 0 && r.Max < r.Initial {
		p.Addf("max", "must not be less than initial, %s, is %s", seconds(r.Initial), seconds(r.Max))
	}
	if v := f[fieldFactor]; !v.IsNull() {
		n, _ := p.MilliBetween("factor", v, 1000, MaxRetryFactor*1000)
		r.Factor = float64(n) / 1000
	}
	return r
}

// String is the wire form, without what is left out.
func (r Retry) String() string { return string(r.appendJSON(nil)) }

func (r Retry) appendJSON(out []byte) []byte {
	out = append(out, '{')
	member := func(name, value string) {
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), `":`...)
		out = append(out, value...)
	}
	if r.MaxAttempts != 0 {
		member("max_attempts", strconv.Itoa(r.MaxAttempts))
	}
	if r.Initial != 0 {
		member("initial", seconds(r.Initial))
	}
	if r.Factor != 0 {
		member("factor", decimal(r.Factor))
	}
	if r.Max != 0 {
		member("max", seconds(r.Max))
	}
	return append(out, '}')
}

// Seconds is a duration of whole milliseconds as a number that is written as it was read. (d.Seconds of 1.235 s is
// 1.2349999999999999.)
func Seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func seconds(d time.Duration) string { return decimal(Seconds(d)) }

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
