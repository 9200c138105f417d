package handle

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
)

var (
	idA = uuid.MustParse("0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a11")
	idB = uuid.MustParse("0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a12")
)

func TestCheck(t *testing.T) {
	t.Parallel()
	keys := Keys{"the-key-that-makes-them", "the-key-that-made-them"}
	report, read := keys.Token(idA, Report, 3), keys.Token(idA, Read, 0)
	flipped := func(i int) string {
		b := []byte(report)
		b[i] ^= 1
		return string(b)
	}
	tests := []struct {
		name, token string
		keys        Keys
		id          uuid.UUID
		scope       Scope
		attempt     int
		ok          bool
	}{
		{"report", report, keys, idA, Report, 3, true},
		{"report reads", report, keys, idA, Read, 3, true},
		{"read", read, keys, idA, Read, 0, true},
		{"read does not report", read, keys, idA, Report, 0, false},
		{"another task", report, keys, idB, Report, 0, false},
		{"of the old key", Keys{keys[1]}.Token(idA, Report, 1), keys, idA, Report, 1, true},
		{"of a key that is gone", report, Keys{keys[1]}, idA, Report, 0, false},
		{"large attempt", keys.Token(idA, Report, math.MaxInt32), keys, idA, Report, math.MaxInt32, true},
		{"empty", "", keys, idA, Report, 0, false},
		{"dots", "...", keys, idA, Report, 0, false},
		{"no mac", report[:strings.LastIndex(report, ".")], keys, idA, Report, 0, false},
		{"empty mac", report[:strings.LastIndex(report, ".")+1], keys, idA, Report, 0, false},
		{"cut", report[:len(report)-1], keys, idA, Report, 0, false},
		{"longer", report + "A", keys, idA, Report, 0, false},
		{"padded", report + "=", keys, idA, Report, 0, false},
		{"another version", flipped(0), keys, idA, Report, 0, false},
		{"another scope", strings.Replace(read, "read", "report", 1), keys, idA, Report, 0, false},
		{"another attempt", strings.Replace(report, ".3.", ".4.", 1), keys, idA, Report, 0, false},
		{"last digit", flipped(len(report) - 1), keys, idA, Report, 0, false},
		{"without keys", report, nil, idA, Report, 0, false},
		{"of an unknown version", "2.report.3." + mac(keys[0], "2.report.3", idA), keys, idA, Report, 0, false},
		{"too long", strings.Repeat("1", 1<<20) + "." + mac(keys[0], strings.Repeat("1", 1<<20), idA), keys, idA, Report, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			attempt, ok := test.keys.Check(test.token, test.id, test.scope)
			if ok != test.ok || ok && attempt != test.attempt {
				t.Errorf("%s: %d, %t", test.token, attempt, ok)
			}
		})
	}
}

// A token stands in the query of a query: nothing in it needs to be escaped.
func TestToken(t *testing.T) {
	t.Parallel()
	want := regexp.MustCompile(`^1\.(report|read)\.\d+\.[A-Za-z0-9_-]{43}$`)
	for _, scope := range []Scope{Report, Read} {
		for attempt := range 50 {
			if token := (Keys{"0123456789abcdef"}).Token(idA, scope, attempt); !want.MatchString(token) || len(token) > maxToken/2 {
				t.Error(token)
			}
		}
	}
}

// FuzzCheck: only what was made is good.
func FuzzCheck(f *testing.F) {
	keys := Keys{"0123456789abcdef"}
	made := keys.Token(idA, Report, 1)
	for _, seed := range []string{"", ".", made, made + ".", "1.report.1.", "1.read.0." + strings.Repeat("A", 43), strings.ToUpper(made)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok := keys.Check(token, idA, Report); ok != (token == made) {
			t.Errorf("%q: %t", token, ok)
		}
	})
}
