package jsonread

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// Value is one JSON value: a part of a checked body, without white space around it. The zero Value stands for a member
// that was left out.
type Value struct {
	raw []byte
	// spans are the large containers in raw, from its own on when it is one; empty when they were not indexed.
	spans []span
}

// span is where a container stands. Those of a body are kept in the order of their beginnings, so that what is inside a
// container follows it.
type span struct {
	start, length uint32
	count         uint32 // of spans inside it, and itself
}

// Only containers that are worth it are indexed: that keeps the index smaller than the body, whatever the body is.
const (
	minIndexed      = 64 // bytes
	maxIndexedDepth = 8
)

// Kind is the type of a value.
type Kind byte

// The kinds of JSON. Null is also that of the zero Value.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

var kindNames = [...]string{"null", "boolean", "number", "string", "array", "object"}

// String names the kind as JSON does.
func (k Kind) String() string { return kindNames[k] }

// Root is the value of a body that was checked before.
func Root(body []byte) Value {
	start := skipSpace(body, 0)
	return Value{raw: body[start:skipValue(body, start)]}
}

// Raw is the value as it was written. It is a part of the body, and nil for a member that was left out.
func (v Value) Raw() []byte { return v.raw }

// Clone is the value in memory of its own.
func (v Value) Clone() Value { return Value{raw: bytes.Clone(v.raw)} }

// Kind tells the type from the first byte.
func (v Value) Kind() Kind {
	if len(v.raw) == 0 {
		return Null
	}
	switch v.raw[0] {
	case '{':
		return Object
	case '[':
		return Array
	case '"':
		return String
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	}
	return Number
}

// IsNull reports whether the value is null or was left out.
func (v Value) IsNull() bool { return len(v.raw) == 0 || v.raw[0] == 'n' }

// IsMissing reports whether the value was left out.
func (v Value) IsMissing() bool { return v.raw == nil }

// Members goes through an object in its order: for name, value := range v.Members. The name is decoded; it may be a
// part of the body. Of anything but an object there are none.
func (v Value) Members(yield func(name []byte, value Value) bool) {
	if v.Kind() != Object {
		return
	}
	data, inside := v.raw, v.inside()
	pos := skipSpace(data, 1)
	for pos < len(data) && data[pos] == '"' {
		end, escaped := scanString(data, pos)
		name := data[pos+1 : max(pos+1, end-1)]
		if escaped {
			name = decoded(data[pos:end])
		}
		pos = skipSpace(data, end)
		if pos < len(data) && data[pos] == ':' {
			pos = skipSpace(data, pos+1)
		}
		value := v.at(pos, &inside)
		if !yield(name, value) {
			return
		}
		pos = skipSpace(data, pos+len(value.raw))
		if pos >= len(data) || data[pos] != ',' {
			return
		}
		pos = skipSpace(data, pos+1)
	}
}

// Elements goes through an array in its order: for i, value := range v.Elements. Of anything but an array there are
// none.
func (v Value) Elements(yield func(i int, value Value) bool) {
	if v.Kind() != Array {
		return
	}
	data, inside := v.raw, v.inside()
	pos := skipSpace(data, 1)
	if pos < len(data) && data[pos] == ']' {
		return
	}
	for i := 0; pos < len(data); i++ {
		value := v.at(pos, &inside)
		if !yield(i, value) {
			return
		}
		pos = skipSpace(data, pos+len(value.raw))
		if pos >= len(data) || data[pos] != ',' {
			return
		}
		pos = skipSpace(data, pos+1)
	}
}

// Len is how many elements an array has.
func (v Value) Len() int {
	n := 0
	for range v.Elements {
		n++
	}
	return n
}

// inside are the spans of the containers in v.
func (v Value) inside() []span {
	if len(v.spans) == 0 {
		return nil
	}
	return v.spans[1:]
}

// at is the value that begins at pos in v. inside are the spans from pos on; those of the value are taken off.
func (v Value) at(pos int, inside *[]span) Value {
	if spans := *inside; len(spans) > 0 && int(spans[0].start-v.spans[0].start) == pos {
		own := spans[0]
		*inside = spans[own.count:]
		end := pos + int(own.length)
		return Value{raw: v.raw[pos:end:end], spans: spans[:own.count]}
	}
	end := skipValue(v.raw, pos)
	return Value{raw: v.raw[pos:end:end]}
}

// Text is the text of a string.
func (v Value) Text() string { return string(decoded(v.raw)) }

// TextBytes is the text of a string, as a part of the body where nothing in it is escaped. It is only to be read.
func (v Value) TextBytes() []byte { return decoded(v.raw) }

// AppendCompact appends the value without white space between its tokens, otherwise as it was written.
func (v Value) AppendCompact(dst []byte) []byte {
	raw := v.raw
	for pos := 0; pos < len(raw); {
		switch {
		case raw[pos] == '"':
			end := skipString(raw, pos)
			dst = append(dst, raw[pos:end]...)
			pos = end
		case isSpace(raw[pos]):
			pos++
		default:
			dst = append(dst, raw[pos])
			pos++
		}
	}
	return dst
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// skipSpace is the first place from pos on that is not white space.
func skipSpace(data []byte, pos int) int {
	for pos < len(data) && data[pos] <= ' ' && isSpace(data[pos]) {
		pos++
	}
	return pos
}

// skipString is the place behind the string that opens at pos.
func skipString(data []byte, pos int) int {
	end, _ := scanString(data, pos)
	return end
}

// scanString is the place behind the string that opens at pos, and whether something in it is escaped.
func scanString(data []byte, pos int) (end int, escaped bool) {
	for i := pos + 1; i < len(data); {
		for i+8 <= len(data) && !special(binary.LittleEndian.Uint64(data[i:])) {
			i += 8
		}
		for i < len(data) && data[i] != '"' && data[i] != '\\' {
			i++
		}
		if i < len(data) && data[i] == '"' {
			return i + 1, escaped
		}
		escaped = true
		i += 2
	}
	return len(data), escaped
}

// skipValue is the place behind the value at pos.
func skipValue(data []byte, pos int) int {
	if pos >= len(data) {
		return len(data)
	}
	switch data[pos] {
	case '"':
		return skipString(data, pos)
	case '{', '[':
		return skipContainer(data, pos)
	}
	for pos < len(data) && data[pos] != ',' && data[pos] != ']' && data[pos] != '}' && !isSpace(data[pos]) {
		pos++
	}
	return pos
}

func skipContainer(data []byte, pos int) int {
	depth := 0
	for pos < len(data) {
		switch data[pos] {
		case '"':
			pos = skipString(data, pos)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return pos + 1
			}
		}
		pos++
	}
	return len(data)
}

// decoded is the text of a string with its quotes: a part of it where nothing is escaped.
func decoded(quoted []byte) []byte {
	if len(quoted) < 2 {
		return nil
	}
	text := quoted[1 : len(quoted)-1]
	first := bytes.IndexByte(text, '\\')
	if first < 0 {
		return text
	}
	out := make([]byte, first, len(text))
	copy(out, text)
	for i := first; i < len(text); {
		if text[i] != '\\' || i+1 >= len(text) {
			out = append(out, text[i])
			i++
			continue
		}
		r, size := unescape(text, i)
		out = utf8.AppendRune(out, r)
		i += size
	}
	return out
}

// unescape decodes the escape sequence at text[i], which has at least two bytes.
func unescape(text []byte, i int) (r rune, size int) {
	switch text[i+1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		unit, ok := hex4(text, i+2)
		if !ok {
			return utf8.RuneError, 2
		}
		if utf16.IsSurrogate(unit) {
			low, _ := hex4(text, i+8)
			return utf16.DecodeRune(unit, low), min(12, len(text)-i)
		}
		return unit, 6
	}
	return rune(text[i+1]), 2
}

const hexDigits = "0123456789abcdef"

// AppendString appends text as a JSON string with no more escaping than JSON asks for. Bytes that are not UTF-8 become
// U+FFFD.
func AppendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(text); {
		b := text[i]
		if b >= ' ' && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, text[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, text[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
		i++
		start = i
	}
	return append(append(dst, text[start:]...), '"')
}
