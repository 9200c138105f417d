package jsonread

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested. The outermost has depth 1.
const MaxDepth = 64

// Check reads body from end to end and reports the first mistake as [Problems] of one element. root is the name of the
// whole in its path, and may be empty. It refuses
//
//   - what is not UTF-8 or not JSON, or has anything but white space after the value;
//   - nesting deeper than [MaxDepth];
//   - a member name that stands twice in one object: readers disagree on which one counts;
//   - \u0000 and halves of surrogate pairs in strings: PostgreSQL cannot store them;
//   - numbers beyond [MaxNumber].
func Check(body []byte, root string) error {
	_, err := check(body, root, MaxNumber, nil)
	return err
}

// CheckStored is Check for JSON that comes back from a database. PostgreSQL writes 1e400 out in full, so that what
// Check accepted may have become longer.
func CheckStored(body []byte, root string) error {
	_, err := check(body, root, 2*MaxNumber+16, nil)
	return err
}

// Parse is Check, and then the value of the body. It is faster to take apart than that of [Root], since it brings an
// index of its larger parts.
func Parse(body []byte, root string) (Value, error) {
	if len(body) > math.MaxUint32 {
		return Root(body), Check(body, root)
	}
	spans, err := check(body, root, MaxNumber, make([]span, 0, 8+len(body)/96))
	if err != nil {
		return Value{}, err
	}
	start := skipSpace(body, 0)
	if len(spans) == 0 {
		return Root(body), nil
	}
	return Value{raw: body[start : start+int(spans[0].length)], spans: spans}, nil
}

// check returns the spans that it found, appended to spans, unless that is nil.
func check(body []byte, root string, maxNumber int, spans []span) ([]span, error) {
	c := checker{data: body, maxNumber: maxNumber, spans: spans}
	if c.document() {
		return c.spans, nil
	}
	var path []step
	if root != "" {
		path = append(path, step{name: root})
	}
	slices.Reverse(c.path)
	line := 1 + bytes.Count(body[:c.at], []byte{'\n'})
	column := c.at - bytes.LastIndexByte(body[:c.at], '\n')
	return nil, Problems{{
		Path:    renderPath(append(path, c.path...)),
		Message: fmt.Sprintf("%s at line %d, column %d", c.reason, line, column),
	}}
}

// checker walks data. Its methods read one thing at pos and leave pos behind it, or set reason and return false; on
// the way out of a mistake every level appends its own step to path.
type checker struct {
	data []byte
	pos  int
	// names are those of all objects that are open, the innermost's last.
	names     []name
	maxNumber int
	spans     []span // nil: no index is wanted

	reason string
	at     int
	path   []step // innermost first
}

type name struct {
	text []byte // decoded
	at   int
}

func (c *checker) fail(at int, format string, args ...any) bool {
	c.at, c.reason = min(at, len(c.data)), fmt.Sprintf(format, args...)
	return false
}

// unexpected fails at pos, where wanted should stand.
func (c *checker) unexpected(wanted string) bool {
	if c.pos >= len(c.data) {
		return c.fail(c.pos, "not valid JSON: it ends where %s should stand", wanted)
	}
	r, _ := utf8.DecodeRune(c.data[c.pos:])
	return c.fail(c.pos, "not valid JSON: %q where %s should stand", r, wanted)
}

func (c *checker) document() bool {
	if at := invalid(c.data); at >= 0 {
		return c.fail(at, "not valid UTF-8")
	}
	c.pos = skipSpace(c.data, 0)
	if c.pos == len(c.data) {
		return c.fail(c.pos, "is empty, JSON was expected")
	}
	if !c.value(0) {
		return false
	}
	c.pos = skipSpace(c.data, c.pos)
	return c.pos == len(c.data) || c.unexpected("the end")
}

// invalid is where text stops being UTF-8, or -1.
func invalid(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
}

// value reads any value; depth is that of the container around it.
func (c *checker) value(depth int) bool {
	if c.pos >= len(c.data) {
		return c.unexpected("a value")
	}
	switch b := c.data[c.pos]; {
	case b == '"':
		return c.text()
	case b == '{' || b == '[':
		return c.container(depth + 1)
	case b == '-' || b >= '0' && b <= '9':
		return c.number()
	case b == 't':
		return c.word("true")
	case b == 'f':
		return c.word("false")
	case b == 'n':
		return c.word("null")
	}
	return c.unexpected("a value")
}

func (c *checker) word(word string) bool {
	if !bytes.HasPrefix(c.data[c.pos:], []byte(word)) {
		return c.unexpected("a value")
	}
	c.pos += len(word)
	return true
}

// container reads an array or an object and notes where it is.
func (c *checker) container(depth int) bool {
	start, own := c.pos, len(c.spans)
	if depth > MaxDepth {
		return c.fail(start, "nested deeper than %d", MaxDepth)
	}
	indexed := c.spans != nil && depth <= maxIndexedDepth
	if indexed {
		c.spans = append(c.spans, span{})
	}
	ok := false
	if c.data[start] == '{' {
		ok = c.object(depth)
	} else {
		ok = c.array(depth)
	}
	switch length := c.pos - start; {
	case !indexed:
	case length < minIndexed:
		c.spans = c.spans[:own] // and nothing inside it was larger
	default:
		c.spans[own] = span{uint32(start), uint32(length), uint32(len(c.spans) - own)}
	}
	return ok
}

func (c *checker) array(depth int) bool {
	c.pos = skipSpace(c.data, c.pos+1)
	if c.pos < len(c.data) && c.data[c.pos] == ']' {
		c.pos++
		return true
	}
	for i := 0; ; i++ {
		if !c.value(depth) {
			c.path = append(c.path, step{index: i})
			return false
		}
		c.pos = skipSpace(c.data, c.pos)
		if c.pos >= len(c.data) || c.data[c.pos] != ',' {
			break
		}
		c.pos = skipSpace(c.data, c.pos+1)
	}
	if c.pos >= len(c.data) || c.data[c.pos] != ']' {
		return c.unexpected("',' or ']'")
	}
	c.pos++
	return true
}

func (c *checker) object(depth int) bool {
	c.pos = skipSpace(c.data, c.pos+1)
	if c.pos < len(c.data) && c.data[c.pos] == '}' {
		c.pos++
		return true
	}
	seen := names{first: len(c.names)}
	for {
		if !c.member(depth, &seen) {
			return false
		}
		c.pos = skipSpace(c.data, c.pos)
		if c.pos >= len(c.data) || c.data[c.pos] != ',' {
			break
		}
		c.pos = skipSpace(c.data, c.pos+1)
	}
	if c.pos >= len(c.data) || c.data[c.pos] != '}' {
		return c.unexpected("',' or '}'")
	}
	c.pos++
	return c.close(seen)
}

// member reads a name, a colon and a value.
func (c *checker) member(depth int, seen *names) bool {
	start := c.pos
	if start >= len(c.data) || c.data[start] != '"' {
		return c.unexpected("a member's name")
	}
	if !c.text() {
		return false
	}
	if !c.remember(name{text: decoded(c.data[start:c.pos]), at: start}, seen) {
		return false
	}
	c.pos = skipSpace(c.data, c.pos)
	if c.pos >= len(c.data) || c.data[c.pos] != ':' {
		return c.unexpected("':'")
	}
	c.pos = skipSpace(c.data, c.pos+1)
	if !c.value(depth) {
		text := string(decoded(c.data[start:skipString(c.data, start)]))
		c.path = append(c.path, step{name: text, index: -1})
		return false
	}
	return true
}

// names are those of one object: the elements of checker.names from first on.
type names struct {
	first int
	// filter has a bit for a cheap hash of each name: most names need not be compared with any other.
	filter uint64
}

// fewNames is up to how many names a new one is compared with those before it; larger objects are sorted at their end.
const fewNames = 24

func (c *checker) remember(n name, seen *names) bool {
	hash := uint(len(n.text))
	if len(n.text) > 0 {
		hash += uint(n.text[0])*7 + uint(n.text[len(n.text)-1])*31 + uint(n.text[len(n.text)/2])*3
	}
	bit := uint64(1) << (hash % 64)
	if seen.filter&bit != 0 && len(c.names)-seen.first <= fewNames {
		for _, other := range c.names[seen.first:] {
			if bytes.Equal(other.text, n.text) {
				return c.duplicate(n)
			}
		}
	}
	seen.filter |= bit
	c.names = append(c.names, n)
	return true
}

// close forgets the names of an object that ended, after looking for duplicates among many.
func (c *checker) close(seen names) bool {
	members := c.names[seen.first:]
	c.names = c.names[:seen.first]
	if len(members) <= fewNames {
		return true
	}
	slices.SortFunc(members, func(a, b name) int { return bytes.Compare(a.text, b.text) })
	for i := 1; i < len(members); i++ {
		if bytes.Equal(members[i-1].text, members[i].text) {
			return c.duplicate(members[i])
		}
	}
	return true
}

func (c *checker) duplicate(n name) bool {
	return c.fail(n.at, "duplicate member name %s", Quote(string(n.text)))
}
