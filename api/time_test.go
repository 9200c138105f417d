package api

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	t.Parallel()
	for want, moment := range map[string]time.Time{
		`null`:                          {},
		`"2026-01-02T03:04:05.000000Z"`: time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600)),
		`"2026-01-02T03:04:05.100000Z"`: time.Date(2026, 1, 2, 3, 4, 5, 100_000_000, time.UTC),
		`"2026-01-02T03:04:05.123456Z"`: time.Date(2026, 1, 2, 3, 4, 5, 123_456_999, time.UTC),
	} {
		raw, err := json.Marshal(Time{moment})
		if err != nil || string(raw) != want {
			t.Errorf("%s, %v, want %s", raw, err, want)
		}
		var back Time
		if err := json.Unmarshal(raw, &back); err != nil || !back.Equal(moment.Truncate(time.Microsecond)) {
			t.Errorf("%s came back as %v, %v", raw, back, err)
		}
	}
}
