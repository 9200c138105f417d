package task

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestShapes(t *testing.T) {
	t.Parallel()
	one := Matcher{"k", Running, []string{"b", "a"}}
	shape := one.Shape()
	if diff := cmp.Diff([]string{"a", "b"}, shape.Fields); diff != "" {
		t.Errorf("fields -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "a"}, one.Fields); diff != "" {
		t.Errorf("the matcher was changed:\n%s", diff)
	}
	if diff := cmp.Diff(shape, Matcher{"k", Running, []string{"a", "b"}}.Shape()); diff != "" {
		t.Errorf("the order of fields matters:\n%s", diff)
	}
	seen := map[ShapeID]Matcher{}
	for _, m := range []Matcher{
		one, {"k", Running, nil}, {"k", Pending, nil}, {"k", Running, []string{"ab"}}, {"k", Running, []string{"a", "b", "c"}},
		{"ka", Running, nil}, {"k", Running, []string{"a"}}, {"k", Running, []string{""}}, {"", Running, []string{"k"}},
	} {
		if other, ok := seen[m.Shape().ID]; ok {
			t.Errorf("%v and %v have one id", m, other)
		}
		seen[m.Shape().ID] = m
	}
}

func TestShapeOfCapacity(t *testing.T) {
	t.Parallel()
	m := Matcher{"k", Running, []string{"a"}}
	load, slots := Rule{Matcher: m, Type: Capacity}.Shape(), Rule{Matcher: m}.Shape()
	if diff := cmp.Diff(m.Shape(), slots); diff != "" || slots.Tallied() {
		t.Errorf("concurrency is tallied: %t; not the matcher's shape:\n%s", slots.Tallied(), diff)
	}
	if load.ID == slots.ID || load.Type != Capacity || !load.Tallied() || !(Matcher{"k", Failure, nil}).Shape().Tallied() {
		t.Errorf("%+v", load)
	}
}

func TestTally(t *testing.T) {
	t.Parallel()
	claimed := time.Now()
	for _, c := range []struct {
		shape    Shape
		state    State
		expected *int64
		want     int
	}{
		{Matcher{"k", Failure, nil}.Shape(), State{Kind: "k", Status: Failure}, nil, 1},
		{Matcher{"k", Failure, nil}.Shape(), State{Kind: "k", Status: Success}, nil, 0},
		{Matcher{"k", Failure, nil}.Shape(), State{Kind: "other", Status: Failure}, nil, 0},
		{Matcher{"k", Pending, nil}.Shape(), State{Kind: "k", Status: Claimed, ClaimedAt: claimed}, nil, 0},
		{Matcher{"k", Paused, nil}.Shape(), State{Kind: "k", Status: Paused, ClaimedAt: claimed}, nil, 1},
		{capacityShape, State{Kind: "k", Status: Pending}, new(int64(5)), 0},
		{capacityShape, State{Kind: "other", Status: Running, ClaimedAt: claimed}, new(int64(5)), 0},
		{capacityShape, State{Kind: "k", Status: Claimed, ClaimedAt: claimed}, new(int64(5)), 5},
		{capacityShape, State{Kind: "k", Status: Paused, ClaimedAt: claimed, Success: 1, Failures: 2}, new(int64(5)), 2},
		{capacityShape, State{Kind: "k", Status: Running, ClaimedAt: claimed}, nil, 0},
		{capacityShape, State{Kind: "k", Status: Success, ClaimedAt: claimed}, new(int64(5)), 0},
	} {
		if got, counted := c.shape.Tally(&c.state, c.expected); counted != (c.want > 0) || counted && got != c.want {
			t.Errorf("%+v of %+v: %d, %t, want %d", c.shape, c.state, got, counted, c.want)
		}
	}
	for _, of := range []Status{Waiting, Pending, Running, Paused, Success, Failure, Canceled} {
		lookup := Matcher{"k", of, nil}.Lookup()
		for _, s := range Statuses() {
			n, counted := lookup.Tally(&State{Kind: "k", Status: s}, nil)
			if want := s == of || s == Claimed && of == Pending; n != 0 || counted != want || !lookup.Tallied() {
				t.Errorf("%s by %s: %d, %t", s, of, n, counted)
			}
			if _, counted := lookup.Tally(&State{Kind: "other", Status: s}, nil); counted {
				t.Errorf("%s of another kind is found", s)
			}
		}
	}
}

var capacityShape = Rule{Type: Capacity, Matcher: Matcher{"k", Running, nil}}.Shape()

func TestLeft(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	for _, c := range []struct {
		expected          *int64
		success, failures int64
		want              int
	}{
		{nil, 0, 0, 0}, {new(int64(5)), 0, 0, 5}, {new(int64(5)), 2, 1, 2}, {new(int64(5)), 5, 0, 0}, {new(int64(5)), 0, 6, 0},
		{new(int64(5)), 4, 4, 0}, {new(int64(most)), most, most, 0}, {new(int64(most)), 0, most, 0}, {new(int64(0)), 0, 0, 0},
	} {
		s := State{Success: c.success, Failures: c.failures}
		if got := s.Left(c.expected); got != c.want {
			t.Errorf("%v with %d and %d: %d, want %d", c.expected, c.success, c.failures, got, c.want)
		}
	}
}

func TestChecks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule Rule
		want int
	}{
		{Rule{Matcher: Matcher{"k", Running, nil}, Max: 3}, 3},
		{Rule{Matcher: Matcher{"other", Running, nil}, Max: 3}, 4},
		{Rule{Matcher: Matcher{"k", Pending, nil}, Max: 3}, 4}, // it is one of them
		{Rule{Matcher: Matcher{"other", Pending, nil}, Max: 3}, 4},
		{Rule{Matcher: Matcher{"k", Failure, nil}, Max: 3}, 3},
		{Rule{Matcher: Matcher{"k", Running, nil}, Type: Capacity, Max: 3}, 3},
		{Rule{Matcher: Matcher{"other", Running, nil}, Type: Capacity, Max: 3}, 3},
	} {
		check, ok := c.rule.Check("k", Metadata{})
		if !ok || check.Limit != c.want || check.Gate.Shape != c.rule.Shape().ID {
			t.Errorf("%+v: %+v, want the limit %d", c.rule, check, c.want)
		}
	}
}

// TestIDsNeverChange: the ids are stored, so that another way to compute them needs a migration.
func TestIDsNeverChange(t *testing.T) {
	t.Parallel()
	gate, ok := Matcher{"clustering", Running, []string{"tenant_id"}}.Shape().Gate(ParseMetadata(json.RawMessage(`{"tenant_id":7}`)))
	want := Gate{ID: 3594022635193132344, Shape: -5131531167571964682, Values: `[7]`}
	if diff := cmp.Diff(want, gate); !ok || diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGates(t *testing.T) {
	t.Parallel()
	shape := Matcher{"k", Running, []string{"t", "n"}}.Shape()
	for md, want := range map[string]string{
		`{"t":7,"n":null}`:                          `[null,7]`,
		` { "x" : [ ] , "n" : null, "t" : 7.0 } `:   `[null,7]`,
		`{"n":{"b":1,"a":[ 2 ]},"\u0074":"\u0061"}`: `[{"a":[2],"b":1},"a"]`,
		`{"t":7}`:       ``,
		`{"T":7,"n":1}`: ``,
		`{}`:            ``,
		`[]`:            ``,
		``:              ``,
	} {
		gate, ok := shape.Gate(ParseMetadata(json.RawMessage(md)))
		if ok != (want != "") || gate.Values != want || ok && gate.Shape != shape.ID {
			t.Errorf("%s: %+v, %v, want %s", md, gate, ok, want)
		}
	}
	if gate, ok := (Matcher{Kind: "k", Status: Running}).Shape().Gate(Metadata{}); !ok || gate.Values != "[]" {
		t.Errorf("without fields: %+v, %v", gate, ok)
	}
}

func TestGateOfManyFields(t *testing.T) {
	t.Parallel()
	var fields []string
	md := "{"
	for i := range 30 {
		fields = append(fields, fmt.Sprintf("m%d", i))
		md += fmt.Sprintf(`"m%d":%d,`, 29-i, 29-i)
	}
	gate, ok := Matcher{"k", Running, fields}.Shape().Gate(ParseMetadata(json.RawMessage(md + `"z":0}`)))
	sorted := slices.Sorted(slices.Values(fields))
	want := "["
	for i, field := range sorted {
		if i > 0 {
			want += ","
		}
		want += field[1:]
	}
	if want += "]"; !ok || gate.Values != want {
		t.Errorf("%s, %v, want %s", gate.Values, ok, want)
	}
}

func TestRuleChecks(t *testing.T) {
	t.Parallel()
	rule := Rule{Matcher: Matcher{"k", Running, []string{"t"}}, Max: 3}
	md := ParseMetadata(json.RawMessage(`{"t":1}`))
	own, ok1 := rule.Check("k", md)
	other, ok2 := rule.Check("j", md)
	if !ok1 || !ok2 || own.Limit != 3 || other.Limit != 4 || own.Gate != other.Gate {
		t.Errorf("own kind %+v, another %+v", own, other)
	}
	if _, ok := rule.Check("k", ParseMetadata(json.RawMessage(`{"T":1}`))); ok {
		t.Error("the field is missing")
	}
}

// TestGatesAreEquality: two tasks meet at one gate exactly when their values are equal.
func TestGatesAreEquality(t *testing.T) {
	t.Parallel()
	shape := Matcher{"k", Running, []string{"f"}}.Shape()
	gate := func(value string) Gate {
		g, _ := shape.Gate(ParseMetadata(json.RawMessage(`{"f":` + value + `}`)))
		return g
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawValue(t, 2)
		c, _ := drawValue(t, 2)
		equal := Contains([]byte("["+a+"]"), []byte("["+c+"]")) && Contains([]byte("["+c+"]"), []byte("["+a+"]"))
		canonicalA, _ := Canonical([]byte(a))
		canonicalC, _ := Canonical([]byte(c))
		if gate(a) != gate(b) || (gate(a) == gate(c)) != (canonicalA == canonicalC) || gate(a) == gate(c) && !equal {
			t.Fatalf("%s, %s, %s: gates %v, %v, %v", a, b, c, gate(a), gate(b), gate(c))
		}
	})
}
