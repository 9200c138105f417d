package task

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[string][]string{
		`1`:                {`1`, `1.0`, `1e0`, `10e-1`, " 1\n"},
		`0`:                {`-0`, `0.000`, `0e9`},
		`9007199254740993`: {`9007199254740993`, `9007199254740993.0`},
		`9007199254740992`: {`9007199254740992`},
		`"é/\"\\\n\u0001"`: {`"\u00e9\/\"\\\u000a\u0001"`, `"é/\u0022\u005c\n\u0001"`},
		`"😀"`:              {`"\ud83d\ude00"`, `"😀"`},
		`{"":0,"A":1,"a":2,"b":[true,false,null]}`: {`{ "b" : [ true, false,null ] , "a":2.0,"":0,"A":1}`, `{"\u0061":2,"":-0,"b":[true,false,null],"A":1e0}`},
		`{"a":{"b":1,"c":2},"d":[]}`:               {`{"d":[ ],"a":{"c":2,"b":1}}`},
		`{}`:                                       {`{}`, ` { } `},
	} {
		for _, spelling := range spellings {
			if got, err := Canonical([]byte(spelling)); err != nil || got != want {
				t.Errorf("Canonical(%s) = %s, %v, want %s", spelling, got, err, want)
			}
		}
	}
	for _, bad := range []string{``, `{`, `{"a":1,"\u0061":2}`, `1 2`, `"\u0000"`, `1e999999999999`} {
		if got, err := Canonical([]byte(bad)); err == nil {
			t.Errorf("Canonical(%s) = %s", bad, got)
		}
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf(`"m%03d":%d`, i, i)
	}
	sorted := "{" + strings.Join(many, ",") + "}"
	many[0], many[199], many[50], many[7] = many[7], many[50], many[0], many[199]
	if got, _ := Canonical([]byte("{" + strings.Join(many, ",") + "}")); got != sorted {
		t.Errorf("200 members became %s", got)
	}
}

// drawValue is a JSON value, written in two ways that mean the same.
func drawValue(t *rapid.T, depth int) (one, other string) {
	kinds := 4
	if depth > 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "type") {
	case 0:
		word := rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
		return word, word
	case 1:
		n := rapid.IntRange(-30, 30).Draw(t, "number")
		return fmt.Sprint(n), fmt.Sprintf("%d.00e-1", n*10)
	case 2, 3:
		text := rapid.StringMatching(`[ab"é]{0,2}`).Draw(t, "text")
		return quoteTwice(text)
	case 4:
		n := rapid.IntRange(0, 3).Draw(t, "elements")
		a, b := make([]string, n), make([]string, n)
		for i := range n {
			a[i], b[i] = drawValue(t, depth-1)
		}
		return "[" + strings.Join(a, ",") + "]", "[ " + strings.Join(b, " , ") + "]"
	}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[abé]{1,2}`), 0, 4, rapid.ID[string]).Draw(t, "names")
	a, b := make([]string, len(names)), make([]string, len(names))
	order := rapid.Permutation(names).Draw(t, "order")
	values := map[string][2]string{}
	for i, name := range names {
		x, y := drawValue(t, depth-1)
		values[name] = [2]string{x, y}
		quoted, _ := quoteTwice(name)
		a[i] = quoted + ":" + x
	}
	for i, name := range order {
		_, quoted := quoteTwice(name)
		b[i] = quoted + " : " + values[name][1]
	}
	return "{" + strings.Join(a, ",") + "}", "{" + strings.Join(b, ", ") + " }"
}

func quoteTwice(text string) (one, other string) {
	plain, _ := json.Marshal(text)
	var escaped strings.Builder
	for _, r := range text {
		fmt.Fprintf(&escaped, `\u%04x`, r)
	}
	return string(plain), `"` + escaped.String() + `"`
}

func TestCanonicalProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		one, other := drawValue(t, 3)
		a, errA := Canonical([]byte(one))
		b, errB := Canonical([]byte(other))
		if errA != nil || errB != nil || a != b {
			t.Fatalf("%s and %s became %s and %s (%v, %v)", one, other, a, b, errA, errB)
		}
		if again, err := Canonical([]byte(a)); err != nil || again != a {
			t.Fatalf("%s became %s (%v)", a, again, err)
		}
		var want, got any
		if json.Unmarshal([]byte(one), &want) != nil || json.Unmarshal([]byte(a), &got) != nil || !reflect.DeepEqual(want, got) {
			t.Fatalf("%s became %s", one, a)
		}
		if !Contains([]byte(one), []byte(other)) {
			t.Fatalf("%s does not contain %s", one, other)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, raw := range []string{`{"b":[1.50,-0,1e3],"a":"\ud83d\ude00\u0001"}`, `1e400`, `[0.00000001,123456789012345678901234]`, `"\/"`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ParseMetadata(raw).Has("a") // must not panic, whatever it is
		Contains(raw, raw)
		canonical, err := Canonical(raw)
		if err != nil {
			return
		}
		again, err := Canonical([]byte(canonical))
		if err != nil || again != canonical || !json.Valid([]byte(canonical)) {
			t.Fatalf("%s became %s, and then %s (%v)", raw, canonical, again, err)
		}
		if !Contains(raw, []byte(canonical)) || !Contains([]byte(canonical), raw) {
			t.Fatalf("%s and %s do not contain one another", raw, canonical)
		}
	})
}

// TestContains has the examples of PostgreSQL's documentation (8.14.3), and the corners.
func TestContains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		container, part string
		want            bool
	}{
		{`"foo"`, `"foo"`, true},
		{`[1, 2, 3]`, `[1, 3]`, true},
		{`[1, 2, 3]`, `[3, 1]`, true},
		{`[1, 2, 3]`, `[1, 2, 2]`, true},
		{`{"product": "PostgreSQL", "version": 9.4, "jsonb": true}`, `{"version": 9.4}`, true},
		{`[1, 2, [1, 3]]`, `[1, 3]`, false},
		{`[1, 2, [1, 3]]`, `[[1, 3]]`, true},
		{`{"foo": {"bar": "baz"}}`, `{"bar": "baz"}`, false},
		{`{"foo": {"bar": "baz"}}`, `{"foo": {}}`, true},
		{`["foo", "bar"]`, `"bar"`, true},
		{`"bar"`, `["bar"]`, false},
		{`[["bar"]]`, `"bar"`, false},
		{`{"a":["bar"]}`, `{"a":"bar"}`, false},
		{`[{"a":["bar"]}]`, `[{"a":["bar"]}]`, true},
		{`[{"a":1,"b":2}, {"a":2}]`, `[{"b":2}, {"a":2}]`, true},
		{`[{"a":1}, {"b":2}]`, `[{"a":1,"b":2}]`, false},
		{`{}`, `{}`, true}, {`[]`, `[]`, true}, {`{}`, `[]`, false}, {`[]`, `{}`, false}, {`[1]`, `[]`, true},
		{`5`, `[]`, false}, {`[[]]`, `[{}]`, false}, {`[{"a":1}]`, `{"a":1}`, false},
		{`1`, `1.0`, true}, {`9007199254740993`, `9007199254740992`, false}, {`null`, `null`, true}, {`[null]`, `null`, true},
		{`{"a":null}`, `{"a":null}`, true}, {`{}`, `{"a":null}`, false}, {`{"a":1}`, `{"a":null}`, false}, {`"1"`, `1`, false},
		{`{"\u0061":"\u0062"}`, `{"a":"b"}`, true},
		{manyMembers(20), manyMembers(9), true}, {manyMembers(9), manyMembers(20), false},
		{manyMembers(20), strings.Replace(manyMembers(9), `"m8":8`, `"m8":9`, 1), false},
	} {
		if got := Contains([]byte(c.container), []byte(c.part)); got != c.want {
			t.Errorf("%s @> %s: %v", c.container, c.part, got)
		}
	}
}

func manyMembers(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%d":%d`, i, i)
	}
	return "{" + strings.Join(members, ",") + "}"
}
