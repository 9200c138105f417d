package settle_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"taskrunner/internal/settle"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var newRules = []task.Rule{{Matcher: task.Matcher{Fields: []string{"b"}}}, {Matcher: task.Matcher{Fields: []string{"a", "b"}}}}

func edit(t *testing.T, b *batchStore) (n int, err error) {
	t.Helper()
	with(t, b, func(s *settle.Settler) { n, err = s.EditRules(t.Context(), task.ID{1}, "k", newRules) })
	return n, err
}

func TestEditRulesInChunks(t *testing.T) {
	t.Parallel()
	b := &batchStore{toEdit: store.ToEdit{IDs: make([]task.ID, 1200)}}
	n, err := edit(t, b)
	if err != nil || n != 800 || !slices.Equal(b.sizes, []int{500, 500, 200}) { // every third has ended meanwhile
		t.Errorf("%d edited, in transactions of %v, %v", n, b.sizes, err)
	}
	for _, o := range b.seen {
		if o.Kind != task.EditRules || len(o.Rules) != len(newRules) {
			t.Fatalf("outcome %+v", o)
		}
	}
}

func TestEditRulesThatDoNotFit(t *testing.T) {
	t.Parallel()
	b := &batchStore{toEdit: store.ToEdit{IDs: make([]task.ID, 2), Lacking: []store.Lacking{{ID: task.ID{7}, Rule: 1, Field: "b"}, {ID: task.ID{8}}}}}
	n, err := edit(t, b)
	problems, ok := errors.AsType[task.Problems](err)
	if !ok || n != 0 || len(b.seen) != 0 || len(problems) != 2 || problems[0].Path != "rules[1]" ||
		!strings.Contains(problems[0].Message, `no field "b"`) || !strings.Contains(problems[1].Message, "has no expected_count") {
		t.Errorf("%d edited, %d outcomes, %v", n, len(b.seen), err)
	}
}

func TestEditRulesBreaksOff(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	b := &batchStore{toEdit: store.ToEdit{IDs: make([]task.ID, 1200)}, err: away}
	if _, err := edit(t, b); !errors.Is(err, away) {
		t.Errorf("error %v", err)
	}
}
