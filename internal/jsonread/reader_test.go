package jsonread_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"taskrunner/internal/jsonread"
)

func TestReaderProblems(t *testing.T) {
	t.Parallel()
	names := []string{"name", "timeout", "flag"}
	for _, c := range []struct {
		body string
		want []string
	}{
		{`{"name":"a","timeout":5,"flag":true}`, nil},
		{`{"flag":false,"timeout":-9223372036854775808,"name":"\u0061"}`, nil},
		{`[]`, []string{`x[7]: must be an object, is array`}},
		{`{"name":1,"timeout":"1","flag":null}`, []string{
			`x[7].name: must be a string, is number`,
			`x[7].timeout: must be a number, is string`,
			`x[7].flag: must be a boolean, is null`}},
		{`{"timeout":1.5}`, []string{
			`x[7].name: is required`, `x[7].timeout: must be a whole number, is 1.5`, `x[7].flag: is required`}},
		{`{"name":"","flag":false,"timeout":5.0}`, []string{
			`x[7].timeout: must be a whole number without fraction and exponent, is 5.0`}},
		{`{"name":"","flag":false,"timeout":9223372036854775808}`, []string{
			`x[7].timeout: must fit into 64 bits, is 9223372036854775808`}},
		{`{"name":"","flag":false,"timeout":101}`, []string{
			`x[7].timeout: must be between -9223372036854775808 and 100, is 101`}},
		{`{"name":"","flag":false,"tiemout":1,"timeout":1,"Name":2,"zzzzzz":3}`, []string{
			`x[7]: unknown field "tiemout", did you mean "timeout"?`,
			`x[7]: unknown field "Name", did you mean "name"?`,
			`x[7]: unknown field "zzzzzz"`}},
	} {
		v, err := jsonread.Parse([]byte(c.body), "")
		if err != nil {
			t.Fatal(err)
		}
		r := jsonread.NewReader("x")
		r.EnterIndex(7)
		var f [3]jsonread.Value
		if r.Fields(v, names, f[:]) {
			r.String("name", f[0])
			r.IntBetween("timeout", f[1], -9223372036854775808, 100)
			r.Bool("flag", f[2])
		}
		r.Leave()
		var got []string
		if problems, ok := errors.AsType[jsonread.Problems](r.Err()); ok {
			got = problems.Strings()
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.body, diff)
		}
	}
}

func TestMilliBetween(t *testing.T) {
	t.Parallel()
	for literal, want := range map[string]any{
		"1": int64(1000), "1.5": int64(1500), "0.001": int64(1), "1e-3": int64(1), "100.10000": int64(100_100), "8.64e4": int64(86_400_000),
		"-1": int64(-1000), "0": int64(0), "-0.0000": int64(0), "0e-99": int64(0), "86400": int64(86_400_000), "-1.000": int64(-1000),
		"86400.001": "must be between -1 and 86400, is 86400.001",
		"-1.001":    "must be between -1 and 86400, is -1.001",
		"1e12":      "must be between -1 and 86400, is 1e12",
		"1e300":     "must be between -1 and 86400, is 1e300",
		"-1e300":    "must be between -1 and 86400, is -1e300",
		"0.0001":    "must have at most 3 decimal places, is 0.0001",
		"1e-300":    "must have at most 3 decimal places, is 1e-300",
		`"1"`:       "must be a number, is string",
		"null":      "must be a number, is null",
		"12345678901234567890123456789012345678901234567890": "must be between -1 and 86400, is 1234567890123456789012345678901234567890…",
	} {
		v, err := jsonread.Parse([]byte(literal), "")
		if err != nil {
			t.Fatal(err)
		}
		r := jsonread.NewReader("")
		n, ok := r.MilliBetween("", v, -1000, 86_400_000)
		var got any = n
		if !ok {
			got = r.Err().Error()
		}
		if got != want {
			t.Errorf("%s: %v, want %v", literal, got, want)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	r := jsonread.NewReader("")
	for range jsonread.MaxProblems + 7 {
		r.Addf("a", "bad")
	}
	problems, _ := errors.AsType[jsonread.Problems](r.Err())
	if len(problems) != jsonread.MaxProblems+1 || problems[jsonread.MaxProblems].String() != "and 7 more" {
		t.Errorf("%d problems, the last one %v", len(problems), problems[len(problems)-1])
	}
	if r.Count() != jsonread.MaxProblems+7 {
		t.Errorf("Count() = %d", r.Count())
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\n\"": `"a\n\""`, strings.Repeat("é", 80): `"` + strings.Repeat("é", 80) + `"`,
		strings.Repeat("😀", 1000): `"` + strings.Repeat("😀", 80) + `…"`,
	} {
		if got := jsonread.Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestAppendNumber(t *testing.T) {
	t.Parallel()
	for want, literals := range map[string][]string{
		"0":                     {"0", "-0", "0.0", "0e5", "-0.00e-7", "0E+400"},
		"1":                     {"1", "1.0", "1e0", "10e-1", "0.1e1", "100E-2"},
		"-1":                    {"-1", "-1.000"},
		"1000":                  {"1000", "1e3", "1.0e+3"},
		"9007199254740993":      {"9007199254740993", "9007199254740993.0", "9.007199254740993e15"},
		"9007199254740992":      {"9007199254740992"},
		"0.1":                   {"0.1", "1e-1", "0.10"},
		"1.5":                   {"1.5", "15e-1"},
		"0.00000012":            {"1.2e-7", "0.00000012"},
		"1e-8":                  {"0.00000001", "10e-9"},
		"100000000000000000000": {"1e20", "100000000000000000000"},
		"1e21":                  {"1000000000000000000000", "1e21", "0.1e22"},
		"1.2e400":               {"1.2e400", "12e399"},
		"123456789012345678901": {"123456789012345678901", "1234567890123456789010e-1"},
		"1e1073741824":          {"1e99999999999999999999"},
	} {
		for _, literal := range literals {
			if got := string(jsonread.AppendNumber(nil, []byte(literal))); got != want {
				t.Errorf("AppendNumber(%s) = %s, want %s", literal, got, want)
			}
		}
	}
}

// TestNumberSpellings moves the point of a number and pads it with zeros: its value has one spelling all the same.
func TestNumberSpellings(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[1-9][0-9]{0,30}`).Draw(t, "digits")
		exponent := rapid.IntRange(-60, 60).Draw(t, "exponent")
		want := jsonread.AppendNumber(nil, []byte(digits+"e"+itoa(exponent)))
		zeros := rapid.IntRange(0, 10).Draw(t, "zeros")
		cut := rapid.IntRange(1, len(digits)).Draw(t, "cut")
		padded := digits[:cut] + "." + digits[cut:] + strings.Repeat("0", zeros+1) + "E" + itoa(exponent+len(digits)-cut)
		if got := jsonread.AppendNumber(nil, []byte(padded)); string(got) != string(want) {
			t.Fatalf("%s became %s, %se%d became %s", padded, got, digits, exponent, want)
		}
		if again := jsonread.AppendNumber(nil, want); string(again) != string(want) {
			t.Fatalf("%s became %s", want, again)
		}
		if len(want) > len(padded)+20 {
			t.Fatalf("%s grew to %s", padded, want)
		}
	})
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestAppendString(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		quoted := jsonread.AppendString(nil, text)
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil || back != text {
			t.Fatalf("%q became %s, which reads as %q (%v)", text, quoted, back, err)
		}
	})
	if got := string(jsonread.AppendString(nil, "a\xffb\xc3")); got != `"a�b�"` {
		t.Errorf("bytes that are not UTF-8 became %s", got)
	}
}
