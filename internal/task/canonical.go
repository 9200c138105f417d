package task

import (
	"bytes"
	"slices"

	"taskrunner/internal/jsonread"
)

// Canonical is the one spelling of a JSON value: two values are equal for a rule exactly when their canonical forms
// are the same bytes. Objects are sorted by the bytes of their names, strings escaped no more than necessary, and
// numbers written by their exact value, so that 1, 1.0 and 10e-1 are one value while 9007199254740993 and
// 9007199254740992 are two. The result is compact JSON. The error is [Problems]: raw is not JSON, or has a member name
// twice.
func Canonical(raw []byte) (string, error) {
	if err := jsonread.CheckStored(raw, ""); err != nil {
		return "", err
	}
	return string(appendCanonical(make([]byte, 0, len(raw)), jsonread.Root(raw))), nil
}

// appendCanonical is Canonical of a value that was checked.
func appendCanonical(dst []byte, v jsonread.Value) []byte {
	switch v.Kind() {
	case jsonread.Number:
		return jsonread.AppendNumber(dst, v.Raw())
	case jsonread.String:
		return appendCanonicalString(dst, v)
	case jsonread.Array:
		dst = append(dst, '[')
		for i, element := range v.Elements {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, element)
		}
		return append(dst, ']')
	case jsonread.Object:
		return appendCanonicalObject(dst, v)
	case jsonread.Null:
		return append(dst, "null"...)
	}
	return append(dst, v.Raw()...)
}

func appendCanonicalString(dst []byte, v jsonread.Value) []byte {
	if bytes.IndexByte(v.Raw(), '\\') < 0 {
		return append(dst, v.Raw()...)
	}
	return jsonread.AppendString(dst, v.Text())
}

func appendCanonicalObject(dst []byte, v jsonread.Value) []byte {
	var room [16]member
	members := room[:0]
	for name, value := range v.Members {
		members = append(members, member{name, value})
	}
	slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(jsonread.AppendString(dst, string(m.name)), ':')
		dst = appendCanonical(dst, m.value)
	}
	return append(dst, '}')
}

// member is one of an object. The name is decoded, and may be a part of the JSON.
type member struct {
	name  []byte
	value jsonread.Value
}
