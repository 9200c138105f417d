package dispatch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"taskrunner/internal/task"
)

// verdicts are those of every status, by ranges, as the documentation has them.
var verdicts = []struct {
	from, to int
	want     Verdict
}{
	{100, 199, GiveUp}, {200, 299, Done}, {300, 399, GiveUp},
	{400, 407, GiveUp}, {408, 408, Retry}, {409, 424, GiveUp}, {425, 425, Retry}, {426, 428, GiveUp}, {429, 429, Retry},
	{430, 499, GiveUp}, {500, 599, Retry},
}

func TestClassifyEveryStatus(t *testing.T) {
	t.Parallel()
	next := 100
	for _, r := range verdicts {
		if r.from != next {
			t.Fatalf("the table has a hole before %d", r.from)
		}
		for ; next <= r.to; next++ {
			if got := Classify(next, nil); got != r.want {
				t.Errorf("%d: %v, want %v", next, got, r.want)
			}
		}
	}
	if next != 600 {
		t.Fatalf("the table ends at %d", next)
	}
	// No status of HTTP: net/http lets them through.
	for status, want := range map[int]Verdict{0: GiveUp, 99: GiveUp, 600: Retry, 999: Retry} {
		if got := Classify(status, nil); got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}

func TestClassifyErrors(t *testing.T) {
	t.Parallel()
	refusal := &refusedError{addr: netip.IPv6Loopback(), class: loopback}
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, c := range map[string]struct {
		err  error
		want Verdict
	}{
		"connection refused":  {dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), Retry},
		"no route":            {dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), Retry},
		"connect time-out":    {dial(os.ErrDeadlineExceeded), Retry},
		"reset":               {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, Retry},
		"broken pipe":         {&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, Retry},
		"no such name":        {dial(&net.DNSError{Err: "no such host", IsNotFound: true}), Retry},
		"DNS time-out":        {dial(&net.DNSError{IsTimeout: true, IsTemporary: true}), Retry},
		"unknown authority":   {&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, Retry},
		"wrong name":          {x509.HostnameError{Host: "h", Certificate: &x509.Certificate{}}, Retry},
		"expired certificate": {x509.CertificateInvalidError{Reason: x509.Expired}, Retry},
		"TLS alert":           {&net.OpError{Op: "remote error", Err: tls.AlertError(40)}, Retry},
		"no TLS":              {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, Retry},
		"time-out":            {context.DeadlineExceeded, Retry},
		"EOF":                 {io.EOF, Retry},
		"EOF in the header":   {io.ErrUnexpectedEOF, Retry},
		"not HTTP":            {errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "x"`), Retry},
		"guard":               {refusal, GiveUp},
		"guard in dialing":    {dial(refusal), GiveUp},
		"unusable":            {fmt.Errorf("%w: x", errUnusable), GiveUp},
	} {
		for _, status := range []int{0, 200} { // an error counts, whatever came before it
			if got := Classify(status, c.err); got != c.want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
}

// server is the policy of a server of which nothing else is said.
func server(trigger task.Trigger, own task.Retry) policy {
	return New(Options{}).policy(&call{trigger: trigger, action: &task.Action{Retry: own}})
}

// pauses are those between all attempts, with the least, or with the greatest random numbers.
func pauses(p policy, greatest bool) (all []time.Duration) {
	for failures := 1; ; failures++ {
		random := uint64(0)
		if greatest {
			random = uint64(p.ceiling(failures) - min(minPause, p.ceiling(failures)))
		}
		pause, again := p.pause(failed{failures: failures}, random)
		if !again {
			return all
		}
		all = append(all, pause)
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	const s, h = time.Second, time.Hour
	for name, c := range map[string]struct {
		trigger task.Trigger
		own     task.Retry
		want    []time.Duration // at most
	}{
		"on_start":      {task.TriggerStart, task.Retry{}, []time.Duration{s, 2 * s}},
		"end":           {task.TriggerSuccess, task.Retry{}, []time.Duration{s, 6 * s, 36 * s, 216 * s, 1296 * s, 7776 * s, 46656 * s, 16 * h, 16 * h}},
		"off":           {task.TriggerCancel, task.Retry{MaxAttempts: 1}, nil},
		"whole":         {task.TriggerBatchComplete, task.Retry{MaxAttempts: 5, Initial: s, Factor: 10, Max: 300 * s}, []time.Duration{s, 10 * s, 100 * s, 300 * s}},
		"attempts only": {task.TriggerStart, task.Retry{MaxAttempts: 5}, []time.Duration{s, 2 * s, 2 * s, 2 * s}},
		"long initial":  {task.TriggerStart, task.Retry{Initial: 9 * s}, []time.Duration{9 * s, 9 * s}},
		"short max":     {task.TriggerFailure, task.Retry{MaxAttempts: 3, Max: s / 2}, []time.Duration{s / 2, s / 2}},
		"tiny":          {task.TriggerFailure, task.Retry{MaxAttempts: 4, Initial: time.Millisecond}, []time.Duration{time.Millisecond, 6 * time.Millisecond, 36 * time.Millisecond}},
		"constant":      {task.TriggerFailure, task.Retry{MaxAttempts: 4, Factor: 1}, []time.Duration{s, s, s}},
		"fraction":      {task.TriggerFailure, task.Retry{MaxAttempts: 3, Initial: 3 * s, Factor: 1.5}, []time.Duration{3 * s, 4500 * time.Millisecond}},
	} {
		p := server(c.trigger, c.own)
		if diff := cmp.Diff(c.want, pauses(p, true)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for i, pause := range pauses(p, false) {
			if want := min(100*time.Millisecond, c.want[i]); pause != want {
				t.Errorf("%s: pause %d is at least %v, want %v", name, i, pause, want)
			}
		}
	}
	// What the defaults promise: 3 s, and a day on average, two at most.
	sum := func(trigger task.Trigger) (total time.Duration) {
		for _, pause := range pauses(server(trigger, task.Retry{}), true) {
			total += pause
		}
		return total
	}
	if start, end := sum(task.TriggerStart), sum(task.TriggerSuccess); start != 3*s || end > 48*h || end/2 < 23*h || end/2 > 25*h {
		t.Errorf("on_start within %v, others within %v", start, end)
	}
}

func drawRetry(t *rapid.T) task.Retry {
	milli := rapid.Int64Range(1, task.MaxRetryPause.Milliseconds())
	r := task.Retry{
		MaxAttempts: rapid.IntRange(1, task.MaxAttempts).Draw(t, "attempts"),
		Initial:     time.Duration(milli.Draw(t, "initial")) * time.Millisecond,
		Factor:      float64(rapid.Int64Range(1000, task.MaxRetryFactor*1000).Draw(t, "factor")) / 1000,
	}
	r.Max = max(r.Initial, time.Duration(milli.Draw(t, "max"))*time.Millisecond)
	return r
}

// Whatever the policy and the chance: a pause is within its bounds, never immediate, and there are never more attempts.
func TestPauseProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		trigger := rapid.SampledFrom([]task.Trigger{task.TriggerStart, task.TriggerSuccess, task.TriggerCancel}).Draw(t, "trigger")
		r := drawRetry(t)
		p := server(trigger, r)
		f := failed{
			failures:   rapid.IntRange(1, task.MaxAttempts+1).Draw(t, "failures"),
			since:      time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "since")),
			retryAfter: time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "retry after")),
		}
		random := rapid.Uint64().Draw(t, "random")
		pause, again := p.pause(f, random)
		// The ceiling, by multiplication.
		ceiling := float64(r.Initial)
		for range f.failures - 1 {
			ceiling = min(ceiling*r.Factor, float64(r.Max))
		}
		slack := time.Duration(ceiling/1e9) + 1 // of rounding
		longestAsked := 24 * time.Hour
		if trigger == task.TriggerStart {
			longestAsked = max(30*time.Second, r.Max)
		}
		asked := min(f.retryAfter, longestAsked)
		least := min(100*time.Millisecond, time.Duration(ceiling)-slack)
		late := trigger == task.TriggerStart && f.since+max(asked, time.Duration(ceiling)) > time.Hour
		switch {
		case !again && f.failures < r.MaxAttempts && !late:
			t.Fatalf("given up after %d of %d attempts", f.failures, r.MaxAttempts)
		case !again:
		case f.failures >= r.MaxAttempts:
			t.Fatalf("sent again after %d of %d attempts", f.failures, r.MaxAttempts)
		case pause <= 0 || pause < least || pause < asked:
			t.Fatalf("pause %v, at least %v, asked for %v", pause, least, asked)
		case pause > max(time.Duration(ceiling)+slack, asked):
			t.Fatalf("pause %v, at most %v, asked for %v", pause, time.Duration(ceiling), asked)
		case trigger == task.TriggerStart && f.since+pause > time.Hour:
			t.Fatalf("an on_start is sent again %v after the first attempt", f.since+pause)
		}
	})
}

// Full jitter: all of the range is used, evenly.
func TestPauseIsJittered(t *testing.T) {
	t.Parallel()
	p := server(task.TriggerSuccess, task.Retry{Initial: 10100 * time.Millisecond})
	const n = 10_000
	var tenths [10]int
	random := rand.New(rand.NewPCG(1, 2))
	for range n {
		pause, _ := p.pause(failed{failures: 1}, random.Uint64())
		tenths[min(9, (pause-minPause)/time.Second)]++
	}
	for i, got := range tenths {
		if got < n/10*9/10 || got > n/10*11/10 {
			t.Errorf("%d of %d pauses in the tenth of the range number %d", got, n, i)
		}
	}
}

func TestPauseRespectsRetryAfter(t *testing.T) {
	t.Parallel()
	start, end := server(task.TriggerStart, task.Retry{}), server(task.TriggerSuccess, task.Retry{})
	patient := server(task.TriggerStart, task.Retry{Max: 5 * time.Minute})
	for _, c := range []struct {
		policy      policy
		asked, want time.Duration
	}{
		{start, 5 * time.Second, 5 * time.Second},
		{start, time.Millisecond, 100 * time.Millisecond}, // never sooner than without
		{start, time.Hour, 30 * time.Second},
		{patient, time.Hour, 5 * time.Minute},
		{end, time.Hour, time.Hour},
		{end, 48 * time.Hour, 24 * time.Hour},
	} {
		if got, again := c.policy.pause(failed{failures: 1, retryAfter: c.asked}, 0); got != c.want || !again {
			t.Errorf("%v: %v, want %v", c.asked, got, c.want)
		}
	}
	if _, again := start.pause(failed{failures: 3, retryAfter: time.Second}, 0); again {
		t.Error("Retry-After must not add attempts")
	}
}

// However patient its policy, an on_start gives its slots back within the hour.
func TestStartEndsWithinTheHour(t *testing.T) {
	t.Parallel()
	p := server(task.TriggerStart, task.Retry{MaxAttempts: 100, Initial: 10 * time.Minute, Max: 10 * time.Minute})
	last := uint64(10*time.Minute - minPause)
	if _, again := p.pause(failed{failures: 5, since: 50 * time.Minute}, last); !again {
		t.Error("given up before the hour")
	}
	if _, again := p.pause(failed{failures: 5, since: 50*time.Minute + 1}, last); again {
		t.Error("sent again after the hour")
	}
	if _, again := p.pause(failed{failures: 5, since: 59 * time.Minute}, 0); !again {
		t.Error("a short pause would have been within the hour")
	}
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                 0,
		"0":                                0,
		"120":                              2 * time.Minute,
		"-1":                               0,
		"1.5":                              0,
		"soon":                             0,
		"999999":                           24 * time.Hour,
		fmt.Sprint(uint64(math.MaxUint64)): 24 * time.Hour,
		"99999999999999999999999":          0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
