package task

import (
	"bytes"

	"taskrunner/internal/jsonread"
)

// Contains reports whether container contains part, as PostgreSQL's jsonb @> does:
//
//   - an object contains one whose every member it has with a value that contains the member's;
//   - an array contains one whose every element is equal to (scalars) or contained in (the rest) one of its own, in any
//     order and however often;
//   - a scalar contains an equal one, in the sense of [Canonical];
//   - and, at the top level only, an array contains a bare scalar that is one of its elements.
//
// Both are checked JSON. It takes time in the product of their sizes where arrays meet, so part should be small.
func Contains(container, part []byte) bool {
	c, p := jsonread.Root(container), jsonread.Root(part)
	if c.Kind() == jsonread.Array && scalar(p) {
		return holds(c, p)
	}
	return contains(c, p)
}

func scalar(v jsonread.Value) bool { return v.Kind() != jsonread.Array && v.Kind() != jsonread.Object }

func contains(c, p jsonread.Value) bool {
	if c.Kind() != p.Kind() {
		return false
	}
	switch p.Kind() {
	case jsonread.Object:
		return containsMembers(c, p)
	case jsonread.Array:
		for _, element := range p.Elements {
			if !holds(c, element) {
				return false
			}
		}
		return true
	}
	return equalScalars(c, p)
}

// holds reports whether one element of the array c contains p.
func holds(c, p jsonread.Value) bool {
	for _, element := range c.Elements {
		if contains(element, p) {
			return true
		}
	}
	return false
}

// containsMembers goes through the members of c once, and ticks off those of p that it finds.
func containsMembers(c, p jsonread.Value) bool {
	var room [8]member
	wanted := room[:0]
	for name, value := range p.Members {
		wanted = append(wanted, member{name, value})
	}
	if len(wanted) > len(room) {
		return containsManyMembers(c, wanted)
	}
	missing := len(wanted)
	for name, value := range c.Members {
		if missing == 0 {
			break
		}
		for _, w := range wanted {
			if !bytes.Equal(name, w.name) {
				continue
			}
			if !contains(value, w.value) {
				return false
			}
			missing--
		}
	}
	return missing == 0
}

func containsManyMembers(c jsonread.Value, wanted []member) bool {
	byName := make(map[string]jsonread.Value, len(wanted))
	for _, w := range wanted {
		byName[string(w.name)] = w.value
	}
	missing := len(byName)
	for name, value := range c.Members {
		w, ok := byName[string(name)]
		if !ok {
			continue
		}
		if !contains(value, w) {
			return false
		}
		missing--
	}
	return missing == 0
}

// equalScalars compares values of one kind.
func equalScalars(a, b jsonread.Value) bool {
	if bytes.Equal(a.Raw(), b.Raw()) {
		return true
	}
	var roomA, roomB [64]byte
	return bytes.Equal(appendCanonical(roomA[:0], a), appendCanonical(roomB[:0], b))
}
