package jsonread

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// Reader turns checked values into Go types and collects what is wrong with them. It keeps the place where it is, so
// that a mistake is told with its path; paths are rendered only then. The methods that read take the name of the member
// that the value is, empty for the place itself, and return false after noting a problem. Not safe for concurrent use.
type Reader struct {
	path     []step
	problems Problems
	more     int
}

// NewReader begins at the place root, which is empty for a body without a name.
func NewReader(root string) *Reader {
	r := &Reader{path: make([]step, 0, 8)}
	if root != "" {
		r.Enter(root)
	}
	return r
}

// Enter goes to the member name, EnterIndex to the element i; Leave goes back by one.
func (r *Reader) Enter(name string) { r.path = append(r.path, step{name: name, index: -1}) }

// EnterIndex goes to the element i.
func (r *Reader) EnterIndex(i int) { r.path = append(r.path, step{index: i}) }

// Leave goes back to where the last Enter or EnterIndex began.
func (r *Reader) Leave() { r.path = r.path[:len(r.path)-1] }

// Addf notes a problem with the member name of the place, or with the place itself when name is empty. It returns
// false.
func (r *Reader) Addf(name, format string, args ...any) bool {
	if len(r.problems) >= MaxProblems {
		r.more++
		return false
	}
	path := r.path
	if name != "" {
		path = append(path, step{name: name, index: -1})
	}
	r.problems = append(r.problems, Problem{Path: renderPath(path), Message: fmt.Sprintf(format, args...)})
	return false
}

// AddAll notes what other has noted, behind what is noted here.
func (r *Reader) AddAll(other *Reader) {
	n := min(len(other.problems), MaxProblems-len(r.problems))
	r.problems = append(r.problems, other.problems[:n]...)
	r.more += len(other.problems) - n + other.more
}

// Count is the number of problems so far, also of those that will not be listed.
func (r *Reader) Count() int { return len(r.problems) + r.more }

// Err is nil, or the [Problems] so far.
func (r *Reader) Err() error {
	switch {
	case len(r.problems) == 0:
		return nil
	case r.more == 0:
		return r.problems
	}
	rest := Problem{Message: fmt.Sprintf("and %d more", r.more)}
	return append(r.problems[:len(r.problems):len(r.problems)], rest)
}

// Fields takes the object at the place apart: out[i] becomes the value of the member names[i], and stays as it is when
// that is left out. Any other member is a problem, with a guess at what was meant.
func (r *Reader) Fields(v Value, names []string, out []Value) bool {
	if !r.Object("", v) {
		return false
	}
	next := 0
	for name, value := range v.Members {
		i := find(names, name, next)
		if i < 0 {
			r.Unknown(string(name), names)
			continue
		}
		out[i], next = value, i+1
	}
	return true
}

// Unknown notes that the object at the place has a member that is none of names, with a guess at what was meant.
func (r *Reader) Unknown(name string, names []string) {
	r.Addf("", "unknown field %s%s", Quote(name), Suggest(name, names))
}

// find is where name stands in names, or -1. It looks from start on first: clients mostly keep to one order.
func find(names []string, name []byte, start int) int {
	for i := start; i < len(names); i++ {
		if names[i] == string(name) {
			return i
		}
	}
	for i := range min(start, len(names)) {
		if names[i] == string(name) {
			return i
		}
	}
	return -1
}

// Is notes a problem unless v is of the kind: "must be a string, is number".
func (r *Reader) Is(name string, v Value, kind Kind) bool {
	is := v.Kind()
	if is == kind {
		return true
	}
	if v.IsMissing() {
		return r.Addf(name, "is required")
	}
	article := "a"
	if kind == Array || kind == Object {
		article = "an"
	}
	return r.Addf(name, "must be %s %s, is %s", article, kind, is)
}

// Object notes a problem unless v is an object.
func (r *Reader) Object(name string, v Value) bool { return r.Is(name, v, Object) }

// Array notes a problem unless v is an array.
func (r *Reader) Array(name string, v Value) bool { return r.Is(name, v, Array) }

// String reads a string. The result does not refer to the body.
func (r *Reader) String(name string, v Value) (string, bool) {
	if !r.Is(name, v, String) {
		return "", false
	}
	return v.Text(), true
}

// Bool reads true or false.
func (r *Reader) Bool(name string, v Value) (value, ok bool) {
	if !r.Is(name, v, Bool) {
		return false, false
	}
	return v.raw[0] == 't', true
}

// Int reads a whole number, written without fraction and exponent, that fits into 64 bits.
func (r *Reader) Int(name string, v Value) (int64, bool) {
	if !r.Is(name, v, Number) {
		return 0, false
	}
	raw := v.raw
	if bytes.ContainsAny(raw, ".eE") {
		if parseDecimal(nil, raw).exponent >= 0 {
			return 0, r.Addf(name, "must be a whole number without fraction and exponent, is %s", shorten(raw))
		}
		return 0, r.Addf(name, "must be a whole number, is %s", shorten(raw))
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, r.Addf(name, "must fit into 64 bits, is %s", shorten(raw))
	}
	return n, true
}

// IntBetween reads a whole number from low to high.
func (r *Reader) IntBetween(name string, v Value, low, high int64) (int64, bool) {
	n, ok := r.Int(name, v)
	if ok && (n < low || n > high) {
		return 0, r.Addf(name, "must be between %d and %d, is %d", low, high, n)
	}
	return n, ok
}

// MilliBetween reads a number with up to three decimal places from low to high, which are thousandths, as the result is:
// of 1.5 it is 1500.
func (r *Reader) MilliBetween(name string, v Value, low, high int64) (int64, bool) {
	if !r.Is(name, v, Number) {
		return 0, false
	}
	var buffer [64]byte
	d := parseDecimal(buffer[:0], v.raw)
	n := int64(math.MaxInt64)
	switch {
	case len(d.digits) == 0:
		n = 0
	case d.exponent < -3:
		return 0, r.Addf(name, "must have at most 3 decimal places, is %s", shorten(v.raw))
	case d.magnitude() <= 12:
		n, _ = strconv.ParseInt(string(appendZeros(d.digits, d.exponent+3)), 10, 64) // of up to 16 digits
	}
	if d.negative {
		n = -n
	}
	if n < low || n > high {
		return 0, r.Addf(name, "must be between %s and %s, is %s", milli(low), milli(high), shorten(v.raw))
	}
	return n, true
}

// milli writes thousandths.
func milli(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) }

// shorten cuts a literal that is too long to be shown.
func shorten(literal []byte) string {
	if len(literal) <= 40 {
		return string(literal)
	}
	return string(literal[:40]) + "…"
}
