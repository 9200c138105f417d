package httpapi

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Whatever the query, a filter is within its bounds and reads the same when it is written out again.
func FuzzParseList(f *testing.F) {
	for _, seed := range []string{
		"", "page=1&per_page=10", "status=Pending,Claimed&kind=data*&name=x", "metadata={%22a%22:1}&timeout=60",
		"cursor=" + idA + "&batch_id=" + idB, "page=-1&page_size=99999999999999999999", "a;b&%zz", "kind=%00&kind=%ff",
		"ids=" + idA + "," + idB + "&ids=" + idA + "&page_size=", "ids=" + idA + ",", "ids=" + nilID,
		"sort=updated&ids=" + idA + "&cursor=1." + idB, "sort=updated&cursor=9." + idB, "cursor=0." + idA,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		l, err := parseList(query, taskFilters)
		if err != nil {
			if f, ok := errors.AsType[*failure](err); !ok || f.code != invalid || len(f.details) == 0 {
				t.Fatalf("%q: %v", query, err)
			}
			return
		}
		g := l.filter
		if g.Limit < 1 || g.Limit > maxPage || g.Offset < 0 || g.Offset > maxOffset || g.Timeout < 0 || g.Timeout > task.MaxTimeout {
			t.Errorf("%q: %+v", query, g)
		}
		if g.IDs != nil && len(g.IDs) == 0 || len(g.IDs) > maxIDs || slices.Contains(g.IDs, task.ID{}) {
			t.Errorf("%q: ids %v", query, g.IDs)
		}
		if textProblem(g.Kind+g.KindPrefix+g.NamePart) != "" || g.Kind != "" && g.KindPrefix != "" {
			t.Errorf("%q: %+v", query, g)
		}
		if g.Metadata != nil && (!json.Valid(g.Metadata) || g.Metadata[0] != '{') {
			t.Errorf("%q: metadata %s", query, g.Metadata)
		}
		if g.Sort == store.SortUpdated && !g.Bounded() || g.Before != (task.ID{}) && g.BeforeUpdate.IsZero() == (g.Sort == store.SortUpdated) {
			t.Errorf("%q: %+v", query, g)
		}
		again, err := parseList(l.known.Encode(), taskFilters)
		if err != nil || !reflect.DeepEqual(again.filter, g) {
			t.Errorf("%q: %+v, and again %+v, %v", query, g, again.filter, err)
		}
	})
}

// Whatever the body of a PATCH, what is accepted is an outcome that the store may take, and JSON for others too.
func FuzzParseUpdate(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"status":"Success","new_success":10,"new_failures":2,"metadata":{"updated":true}}`,
		`{"status":"Failure","failure_reason":"x"}`, `{"expected_count":1,"priority":-3,"status":null}`, `[]`, `{"a":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, _, err := parseOutcome(body, testID(1), readUpdate)
		if err != nil {
			if p, ok := errors.AsType[task.Problems](err); !ok || len(p) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		if o.ID != testID(1) || o.Kind != task.Update || o.NewSuccess < 0 || o.NewFailures < 0 ||
			o.NewSuccess > maxCount || o.NewFailures > maxCount || (o.Status == task.Failure) != (o.FailureReason != "") ||
			!utf8.ValidString(o.FailureReason) || utf8.RuneCountInString(o.FailureReason) > maxFailureReason {
			t.Errorf("%q: %+v", body, o)
		}
		if o.Metadata != nil && (!json.Valid(o.Metadata) || o.Metadata[0] != '{' || len(o.Metadata) > task.MaxMetadata) {
			t.Errorf("%q: metadata %q", body, o.Metadata)
		}
		if o.Priority != nil && (*o.Priority < task.MinPriority || *o.Priority > task.MaxPriority) ||
			o.ExpectedCount != nil && (*o.ExpectedCount < 0 || *o.ExpectedCount > task.MaxExpectedCount) {
			t.Errorf("%q: %+v", body, o)
		}
	})
}

// Whatever the array, what is accepted is the same updates as each alone, with an id.
func FuzzParseUpdates(f *testing.F) {
	for _, seed := range []string{
		`[{"id":"` + idA + `"}]`, ` [{"id":"` + idA + `","status":"Success","new_success":1},{"id":"` + idB + `","metadata":{"a":[]}}]`,
		`[]`, `[{}]`, `{"id":"` + idA + `"}`, `[`, `[{"id":"` + nilID + `"}]`, `[{"id":"` + idA + `","task_id":1}]`, `[null]`, `[[]]`,
		`[{"id":"` + idA + `","token":"x"}]`, `[{"id":"` + idA + `","token":null}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		outcomes, tokens, err := parseOutcomes(body, readUpdate)
		if err != nil {
			p, _ := errors.AsType[task.Problems](err)
			if f, is := errors.AsType[*failure](err); len(p) == 0 && (!is || f.code != tooLarge) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		var elements []map[string]json.RawMessage
		if err := json.Unmarshal(body, &elements); err != nil || len(elements) != len(outcomes) || len(elements) == 0 {
			t.Fatalf("accepted %q: %+v", body, outcomes)
		}
		for i, o := range outcomes {
			delete(elements[i], "id")
			if raw, given := elements[i]["token"]; given && string(raw) != "null" && !reflect.DeepEqual(text(raw), tokens[i]) {
				t.Errorf("%q: token %q", body, tokens[i])
			}
			delete(elements[i], "token")
			alone, err := json.Marshal(elements[i])
			if err != nil {
				t.Fatal(err)
			}
			if want, _, err := parseOutcome(alone, o.ID, readUpdate); err != nil || o.ID == (task.ID{}) || !reflect.DeepEqual(o, want) {
				t.Errorf("%q: %+v, alone %+v, %v", body, o, want, err)
			}
		}
	})
}

// text is the string raw, or else nil.
func text(raw json.RawMessage) any {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil
	}
	return s
}

func FuzzParseCounts(f *testing.F) {
	for _, seed := range []string{
		`{"task_id":"` + idA + `","new_success":5}`, `[{"task_id":"` + idA + `","new_failures":5,"status":1}]`, `[`, ` []`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		outcomes, tokens, array, err := parseCounts(body)
		if err != nil {
			return
		}
		if !json.Valid(body) || len(outcomes) == 0 || len(tokens) != len(outcomes) || !array && len(outcomes) != 1 {
			t.Fatalf("accepted %q: %+v", body, outcomes)
		}
		for _, o := range outcomes {
			if o.Kind != task.Count || o.ID == (task.ID{}) || o.NewSuccess < 0 || o.NewFailures < 0 || o.NewSuccess+o.NewFailures == 0 {
				t.Errorf("%q: %+v", body, o)
			}
		}
	})
}
