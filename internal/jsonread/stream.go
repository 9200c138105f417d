package jsonread

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Stream takes a body apart while it comes, so that no more of it is in memory than the value in hand. It refuses what
// [Check] refuses, by the same words, but begins at the beginning: what was given out before a mistake was good by itself.
//
// Whoever uses it reads one value, by Value, Elements or Members, and then calls End. After a mistake, and when the body
// cannot be read, nothing more comes, and Err says why. Not safe for concurrent use.
type Stream struct {
	body  io.Reader
	ended bool // the body; nothing more can be read
	cause error

	// window is what was read of the body and is not used up; its pos is where the stream stands.
	window checker
	// lines are those that ended before the window, column is how many bytes of the line in which it begins stand before it.
	lines, column int

	depth int // containers that are open
	path  []step
	err   error
}

// NewStream begins at the beginning of body.
func NewStream(body io.Reader) *Stream {
	return &Stream{body: body, window: checker{maxNumber: MaxNumber, spans: make([]span, 0, 8)}}
}

// Enter names the place where the stream stands, for the paths of mistakes.
func (s *Stream) Enter(name string) { s.path = append(s.path, step{name: name, index: -1}) }

// Err is why the stream has ended early: [Problems] of one element, or the error of reading the body; nil: it has not.
func (s *Stream) Err() error {
	if s.cause != nil {
		return s.cause
	}
	return s.err
}

// Kind is that of the next value, which is not read yet. It is Null when there is none.
func (s *Stream) Kind() Kind {
	if s.Err() != nil || s.next() == 0 {
		return Null
	}
	return Value{raw: s.window.data[s.window.pos:]}.Kind()
}

// Value reads the next value. It is a part of the window, and good until the stream is used again.
func (s *Stream) Value() (Value, bool) {
	return s.token(func() bool { return s.window.value(s.depth) })
}

// Elements goes through the array that comes next, and reads it: for i, value := range s.Elements. A value is good until the
// next one. Of anything but an array there are none, and it is not read.
func (s *Stream) Elements(yield func(i int, value Value) bool) {
	if !s.open(Array, ']') {
		return
	}
	for i, more := 0, true; more; i++ {
		s.path = append(s.path, step{index: i})
		value, ok := s.Value()
		if !ok || !yield(i, value) {
			return
		}
		more = s.another("',' or ']'", ']')
	}
}

// maxMembers is how many members the objects may have that [Stream.Members] goes through: it remembers their names.
const maxMembers = 100

// Members goes through the object that comes next, and reads it: for name := range s.Members. Whoever gets a name reads its
// value. Of anything but an object there are none, and it is not read. More than 100 members are a mistake.
func (s *Stream) Members(yield func(name string) bool) {
	if !s.open(Object, '}') {
		return
	}
	var seen []string
	for more := true; more; {
		name, ok := s.name(seen)
		if !ok {
			return
		}
		seen = append(seen, name)
		s.Enter(name)
		if !yield(name) || s.Err() != nil {
			return
		}
		more = s.another("',' or '}'", '}')
	}
}

// End notes it as a mistake if anything follows.
func (s *Stream) End() {
	if s.Err() == nil && (s.next() != 0 || s.window.pos < len(s.window.data)) {
		s.unexpected("the end")
	}
}

// open goes into a container, and reports whether there is something in it.
func (s *Stream) open(kind Kind, end byte) bool {
	if s.Kind() != kind {
		return false
	}
	s.window.pos++
	if s.next() == end {
		s.window.pos++
		return false
	}
	s.depth++
	return true
}

// another goes from one thing in a container to the next one, or behind end if there is none.
func (s *Stream) another(wanted string, end byte) bool {
	s.path = s.path[:len(s.path)-1]
	switch s.next() {
	case ',':
		s.window.pos++
		return true
	case end:
		s.window.pos++
		s.depth--
		return false
	}
	return s.unexpected(wanted)
}

// name reads the name of a member and the colon behind it.
func (s *Stream) name(seen []string) (string, bool) {
	c := &s.window
	v, ok := s.token(func() bool {
		if c.pos >= len(c.data) || c.data[c.pos] != '"' {
			return c.unexpected("a member's name")
		}
		return c.text()
	})
	if !ok {
		return "", false
	}
	name, start := v.Text(), c.pos-len(v.raw)
	if slices.Contains(seen, name) {
		c.fail(start, "duplicate member name %s", Quote(name))
		return "", s.fail()
	}
	if len(seen) == maxMembers {
		c.fail(start, "more than %d members", maxMembers)
		return "", s.fail()
	}
	if s.next() != ':' {
		return "", s.unexpected("':'")
	}
	c.pos++
	return name, true
}

// token reads what comes next with read, which is a method of the window. If the window has cut it off, it is read again.
func (s *Stream) token(read func() bool) (Value, bool) {
	if s.Err() != nil {
		return Value{}, false
	}
	c := &s.window
	if s.next(); c.pos == len(c.data) && s.depth == 0 {
		c.fail(c.pos, "is empty, JSON was expected")
		return Value{}, s.fail()
	}
	start := c.pos
	try := func() bool {
		c.pos, c.names, c.spans, c.path = start, c.names[:0], c.spans[:0], c.path[:0]
		return read()
	}
	ok := try()
	if (!ok || c.pos == len(c.data)) && !s.ended {
		c.pos = start
		for skipValue(c.data, c.pos) == len(c.data) && s.more() {
		}
		start = c.pos
		ok = try()
	}
	end := c.pos
	if !ok {
		end = skipValue(c.data, start)
	}
	if i := invalid(c.data[start:end]); i >= 0 {
		c.path = c.path[:0]
		ok = c.fail(start+i, "not valid UTF-8")
	}
	if !ok || s.cause != nil {
		return Value{}, s.fail()
	}
	v := Value{raw: c.data[start:end:end]}
	if len(c.spans) > 0 {
		v.spans = c.spans
	}
	return v, true
}

// next goes to the next byte that is not white space. It is 0 at the end of the body.
func (s *Stream) next() byte {
	c := &s.window
	for {
		if c.pos = skipSpace(c.data, c.pos); c.pos < len(c.data) {
			return c.data[c.pos]
		}
		if !s.more() {
			return 0
		}
	}
}

// How large the window is at first, which is enough for most bodies, and then, unless one value is larger.
const (
	firstWindow = 4 << 10
	laterWindow = 64 << 10
)

// more forgets what stands before pos and fills the window up from the body. It reports whether anything came.
func (s *Stream) more() bool {
	if s.ended {
		return false
	}
	c := &s.window
	used, rest := c.data[:c.pos], c.data[c.pos:]
	if n := bytes.Count(used, []byte{'\n'}); n > 0 {
		s.lines, s.column = s.lines+n, len(used)-1-bytes.LastIndexByte(used, '\n')
	} else {
		s.column += len(used)
	}
	room := c.data[:cap(c.data)]
	switch {
	case room == nil:
		room = make([]byte, firstWindow)
	case len(room) < laterWindow:
		room = make([]byte, laterWindow)
	case len(rest) > len(room)/2:
		room = make([]byte, 2*len(room))
	}
	n, err := io.ReadFull(s.body, room[copy(room, rest):])
	c.data, c.pos = room[:len(rest)+n], 0
	if err != nil {
		s.ended = true
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.cause = err
		}
	}
	return n > 0
}

// unexpected ends the stream where wanted should stand. It returns false.
func (s *Stream) unexpected(wanted string) bool {
	c := &s.window
	if len(c.data)-c.pos < utf8.UTFMax {
		s.more()
	}
	c.unexpected(wanted)
	if invalid(c.data[c.pos:min(c.pos+utf8.UTFMax, len(c.data))]) == 0 {
		c.fail(c.pos, "not valid UTF-8")
	}
	return s.fail()
}

// fail ends the stream by what is wrong in the window. It returns false.
func (s *Stream) fail() bool {
	c := &s.window
	before := c.data[:c.at]
	line, column := 1+s.lines+bytes.Count(before, []byte{'\n'}), c.at-bytes.LastIndexByte(before, '\n')
	if line == 1+s.lines {
		column += s.column
	}
	slices.Reverse(c.path)
	s.err = Problems{{
		Path:    renderPath(append(slices.Clip(s.path), c.path...)),
		Message: fmt.Sprintf("%s at line %d, column %d", c.reason, line, column),
	}}
	return false
}
