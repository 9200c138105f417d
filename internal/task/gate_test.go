package task

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

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

// TestIDsNeverChange: the ids are stored, so that another way to compute them needs a migration.
func TestIDsNeverChange(t *testing.T) {
	t.Parallel()
	gate, ok := Matcher{"clustering", Running, []string{"tenant_id"}}.Shape().Gate(ParseMetadata(json.RawMessage(`{"tenant_id":7}`)))
	want := Gate{ID: 7714087958654870586, Shape: -4344688475934362738, Values: `[7]`}
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
