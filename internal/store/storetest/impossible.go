package storetest

import "testing"

// Impossible checks that a database refuses state rows that cannot be, whatever a driver writes. exec runs a statement; there is
// one task, which is Pending.
func Impossible(t *testing.T, exec func(sql string) error) {
	t.Helper()
	for what, set := range map[string]string{
		"no such status":              "status = 0",
		"no such status, either":      "status = 9, ended_at = last_updated",
		"a negative count":            "success = -1",
		"a negative failure count":    "failures = -1",
		"waiting for nothing":         "status = 1",
		"waiting for less":            "status = 5, unmet = -1",
		"Pending, and waits":          "unmet = 1",
		"Claimed, and waits":          "status = 3, unmet = 1, claimed_at = last_updated",
		"Running, and waits":          "status = 4, unmet = 1, claimed_at = last_updated, started_at = last_updated",
		"Claimed at no time":          "status = 3",
		"Running, and never claimed":  "status = 4, started_at = last_updated",
		"Running, and never started":  "status = 4, claimed_at = last_updated",
		"an end at no time":           "status = 6",
		"another end at no time":      "status = 8",
		"not ended, and has its time": "ended_at = last_updated",
	} {
		if exec("UPDATE task_state SET "+set) == nil {
			t.Errorf("%s: %s is possible", what, set)
		}
	}
	for _, set := range []string{
		"status = 1, unmet = 2", "status = 5, unmet = 2", "status = 5, unmet = 0", "status = 3, claimed_at = last_updated",
		"status = 4, started_at = last_updated", "status = 7, ended_at = last_updated, unmet = -3",
	} {
		if err := exec("UPDATE task_state SET " + set); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}
