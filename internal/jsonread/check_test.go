package jsonread_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/jsonread"
)

var accepted = []string{
	`{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `-1.50e+3`, `""`, " \t\r\n[1 , 2]\n",
	`{"a":{"a":1},"b":[{"a":1},{"a":2}]}`, `"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀"`, `{"":0," ":1}`,
	`{"A":1,"a":2}`, strings.Repeat("[", 64) + strings.Repeat("]", 64), "1" + strings.Repeat("0", 399),
	`1e400`, `1e-400`, `0.00001e405`, `"\u007f\u0001"`, `0e400`,
}

var refused = []struct{ body, want string }{
	{``, `body: is empty, JSON was expected at line 1, column 1`},
	{" \n", `body: is empty, JSON was expected at line 2, column 1`},
	{`nul`, `body: not valid JSON: 'n' where a value should stand at line 1, column 1`},
	{`{} {}`, `body: not valid JSON: '{' where the end should stand at line 1, column 4`},
	{`[1,]`, `body[1]: not valid JSON: ']' where a value should stand at line 1, column 4`},
	{`[1 2]`, `body: not valid JSON: '2' where ',' or ']' should stand at line 1, column 4`},
	{`[1`, `body: not valid JSON: it ends where ',' or ']' should stand at line 1, column 3`},
	{`{"a":1,}`, `body: not valid JSON: '}' where a member's name should stand at line 1, column 8`},
	{`{"a" 1}`, `body: not valid JSON: '1' where ':' should stand at line 1, column 6`},
	{`{"a":}`, `body.a: not valid JSON: '}' where a value should stand at line 1, column 6`},
	{"[{},\n {\"x\":{\"y z\":[tru]}}]", `body[1].x["y z"][0]: not valid JSON: 't' where a value should stand at line 2, column 15`},
	{`{'a':1}`, `body: not valid JSON: '\'' where a member's name should stand at line 1, column 2`},
	{`"abc`, `body: not valid JSON: a string without its end at line 1, column 1`},
	{`"abc\`, `body: not valid JSON: a string without its end at line 1, column 5`},
	{`"\x"`, `body: not valid JSON: unknown escape sequence at line 1, column 2`},
	{`"\u12g4"`, `body: not valid JSON: \u without four hexadecimal digits at line 1, column 2`},
	{"\"a\nb\"", `body: not valid JSON: an unescaped control character in a string at line 1, column 3`},
	{"\"12345678\x1f\"", `body: not valid JSON: an unescaped control character in a string at line 1, column 10`},
	{"[\"a\xff\"]", `body: not valid UTF-8 at line 1, column 4`},
	{"\"\xed\xa0\x80\"", `body: not valid UTF-8 at line 1, column 2`},
	{`["a\u0000"]`, `body[0]: a NUL character (\u0000) in a string, which cannot be stored at line 1, column 4`},
	{`{"\u0000":1}`, `body: a NUL character (\u0000) in a string, which cannot be stored at line 1, column 3`},
	{`"\ud800"`, `body: half of a surrogate pair (\ud800) in a string, which cannot be stored at line 1, column 2`},
	{`"\udc00\ud800"`, `body: half of a surrogate pair (\udc00) in a string, which cannot be stored at line 1, column 2`},
	{`"\ud800\u0041"`, `body: half of a surrogate pair (\ud800) in a string, which cannot be stored at line 1, column 2`},
	{`01`, `body: not valid JSON: a number with a leading zero at line 1, column 1`},
	{`+1`, `body: not valid JSON: '+' where a value should stand at line 1, column 1`},
	{`-`, `body: not valid JSON: it ends where a digit should stand at line 1, column 2`},
	{`1.`, `body: not valid JSON: it ends where a digit should stand at line 1, column 3`},
	{`1e`, `body: not valid JSON: it ends where a digit should stand at line 1, column 3`},
	{`[1e401]`, `body[0]: a number with an exponent beyond ±400 at line 1, column 2`},
	{`1e-401`, `body: a number with an exponent beyond ±400 at line 1, column 1`},
	{`0e99999999999999999999`, `body: a number with an exponent beyond ±400 at line 1, column 1`},
	{"1" + strings.Repeat("0", 400), `body: a number of 401 characters, at most 400 are allowed at line 1, column 1`},
	{`{"a":1,"b":2,"a":3}`, `body: duplicate member name "a" at line 1, column 14`},
	{`[{"a":{"b":1,"\u0062":2}}]`, `body[0].a: duplicate member name "b" at line 1, column 14`},
	{strings.Repeat("[", 65) + strings.Repeat("]", 65),
		`body` + strings.Repeat("[0]", 64) + `: nested deeper than 64 at line 1, column 65`},
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, body := range accepted {
		if err := jsonread.Check([]byte(body), "body"); err != nil {
			t.Errorf("Check(%.60q) = %v", body, err)
		}
		if !json.Valid([]byte(body)) {
			t.Errorf("encoding/json refuses %.60q", body)
		}
	}
	for _, c := range refused {
		err := jsonread.Check([]byte(c.body), "body")
		problems, ok := errors.AsType[jsonread.Problems](err)
		if !ok || len(problems) != 1 {
			t.Errorf("Check(%.60q) = %v, want %s", c.body, err, c.want)
			continue
		}
		if diff := cmp.Diff(c.want, err.Error()); diff != "" {
			t.Errorf("Check(%.60q) -want +got:\n%s", c.body, diff)
		}
	}
}

// TestManyMembers has objects beyond the size up to which names are compared one by one.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 24, 25, 26, 100, 200_000} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf(`"m%d":%d`, i, i)
		}
		start := time.Now()
		if err := jsonread.Check([]byte("{"+strings.Join(names, ",")+"}"), ""); err != nil {
			t.Errorf("%d members: %v", n, err)
		}
		names[n-1] = `"m0":0`
		err := jsonread.Check([]byte("{"+strings.Join(names, ",")+"}"), "")
		if err == nil || !strings.Contains(err.Error(), `duplicate member name "m0"`) {
			t.Errorf("%d members, the first one twice: %v", n, err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%d members took %v", n, took)
		}
	}
}

func TestCheckStored(t *testing.T) {
	t.Parallel()
	long := []byte("0." + strings.Repeat("0", 399) + strings.Repeat("1", 390))
	if jsonread.Check(long, "") == nil || jsonread.CheckStored(long, "") != nil {
		t.Error("a number that PostgreSQL wrote out must pass CheckStored, and only that")
	}
}

// FuzzCheck: what is accepted is JSON to encoding/json too, reads the same there, and reads the same with and without
// the index.
func FuzzCheck(f *testing.F) {
	for _, body := range accepted {
		f.Add([]byte(body))
	}
	for _, c := range refused {
		f.Add([]byte(c.body))
	}
	long := `"` + strings.Repeat("x", 80) + `"`
	f.Add([]byte(`[{"a":[{"b":` + long + `},[` + long + `]],"\u0063":{"d\"":` + long + `}} , ` + long + `]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		walk(jsonread.Root(body)) // must not panic, whatever it is
		v, err := jsonread.Parse(body, "body")
		if (err == nil) != (jsonread.Check(body, "body") == nil) {
			t.Fatalf("Check and Parse disagree: %v", err)
		}
		if err != nil {
			return
		}
		var want any
		decoder := json.NewDecoder(strings.NewReader(string(body)))
		decoder.UseNumber()
		if err := decoder.Decode(&want); err != nil || !json.Valid(body) {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		// Not cmp.Diff, whose time doubles with every level of nesting.
		if got := walk(v); !reflect.DeepEqual(want, got) {
			t.Fatalf("with the index: got %v, encoding/json has %v", got, want)
		}
		if got := walk(jsonread.Root(body)); !reflect.DeepEqual(want, got) {
			t.Fatalf("without the index: got %v, encoding/json has %v", got, want)
		}
		if compact := v.AppendCompact(nil); !reflect.DeepEqual(want, walk(jsonread.Root(compact))) || !json.Valid(compact) {
			t.Fatalf("the compact form has become %s", compact)
		}
	})
}

// walk takes a value apart as far as it goes.
func walk(v jsonread.Value) any {
	switch v.Kind() {
	case jsonread.Object:
		members := map[string]any{}
		for name, value := range v.Members {
			members[string(name)] = walk(value)
		}
		return members
	case jsonread.Array:
		elements := []any{}
		for _, value := range v.Elements {
			elements = append(elements, walk(value))
		}
		if n := v.Len(); n != len(elements) {
			panic(fmt.Sprintf("an array of %d elements has %d", n, len(elements)))
		}
		return elements
	case jsonread.String:
		return v.Text()
	case jsonread.Number:
		return json.Number(v.Raw())
	case jsonread.Bool:
		return string(v.Raw()) == "true"
	}
	return nil
}
