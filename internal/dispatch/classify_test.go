package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	byStatus := map[Verdict][]int{
		Done:   {200, 201, 202, 204, 206, 299},
		Retry:  {408, 425, 429, 500, 501, 502, 503, 504, 521, 599, 999},
		GiveUp: {0, 100, 101, 103, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 499},
	}
	for want, statuses := range byStatus {
		for _, status := range statuses {
			if got := Classify(status, nil); got != want {
				t.Errorf("%d: %v, want %v", status, got, want)
			}
		}
	}
	refusal := &refusedError{addr: netip.IPv6Loopback(), class: loopback}
	byError := map[Verdict][]error{
		Retry: {context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, &net.DNSError{IsNotFound: true},
			&net.OpError{Op: "dial", Err: errors.New("connection refused")}, errors.New("tls: handshake failure")},
		GiveUp: {refusal, &net.OpError{Op: "dial", Err: refusal}, fmt.Errorf("%w: x", errUnusable)},
	}
	for want, errs := range byError {
		for _, err := range errs {
			if got := Classify(0, err); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
}

// total sums the pauses of a policy with the least or the greatest random number.
func total(p policy, random uint64) (sum time.Duration, attempts int) {
	for failures := 1; ; failures++ {
		pause, again := p.pause(failures, 0, random)
		if !again {
			return sum, failures
		}
		sum += pause
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		policy    policy
		attempts  int
		low, high time.Duration
	}{
		{startPolicy, 3, 2 * time.Second, 4 * time.Second},
		{outboxPolicy, 10, 18 * time.Hour, 31 * time.Hour},
	}
	for _, c := range tests {
		low, attempts := total(c.policy, 0)
		if attempts != c.attempts || low < c.low {
			t.Errorf("%d attempts within at least %v, want %d and %v", attempts, low, c.attempts, c.low)
		}
		for random := range uint64(1000) {
			if sum, _ := total(c.policy, random*0x9e3779b97f4a7c15); sum > c.high || sum < low {
				t.Errorf("attempts within %v, want %v to %v", sum, low, c.high)
			}
		}
	}
}

func TestPauseIsJittered(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for random := range uint64(100) {
		pause, again := startPolicy.pause(1, 0, random*0x9e3779b97f4a7c15)
		if !again || pause < 750*time.Millisecond || pause > 1250*time.Millisecond {
			t.Fatalf("pause %v", pause)
		}
		seen[pause] = true
	}
	if len(seen) < 90 {
		t.Errorf("%d different pauses of 100", len(seen))
	}
}

func TestPauseRespectsRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ asked, want time.Duration }{
		{5 * time.Second, 5 * time.Second},
		{time.Millisecond, 750 * time.Millisecond}, // never sooner than without
		{time.Hour, 30 * time.Second},
	} {
		if got, again := startPolicy.pause(1, c.asked, 0); got != c.want || !again {
			t.Errorf("%v: %v, want %v", c.asked, got, c.want)
		}
	}
	if got, _ := outboxPolicy.pause(1, 48*time.Hour, 0); got != 24*time.Hour {
		t.Errorf("pause %v", got)
	}
	if _, again := startPolicy.pause(3, time.Second, 0); again {
		t.Error("Retry-After must not add attempts")
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
