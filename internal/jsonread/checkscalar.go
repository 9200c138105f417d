package jsonread

import "encoding/binary"

// text reads a string, from its opening to its closing quote.
func (c *checker) text() bool {
	data := c.data
	i := c.pos + 1
	for {
		for i+8 <= len(data) {
			if special(binary.LittleEndian.Uint64(data[i:])) {
				break
			}
			i += 8
		}
		for i < len(data) && data[i] != '"' && data[i] != '\\' && data[i] >= ' ' {
			i++
		}
		switch {
		case i >= len(data):
			return c.fail(c.pos, "not valid JSON: a string without its end")
		case data[i] == '"':
			c.pos = i + 1
			return true
		case data[i] == '\\':
			n, ok := c.escape(i)
			if !ok {
				return false
			}
			i += n
		default:
			return c.fail(i, "not valid JSON: an unescaped control character in a string")
		}
	}
}

// special reports whether one of eight bytes is a quote, a backslash or below 0x20. Such a byte leaves the high bit of
// its difference set, which bytes from 0x80 on (masked out) and the other ones do not.
func special(eight uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote := eight ^ ones*'"'
	slash := eight ^ ones*'\\'
	return ((eight-ones*' ')|(quote-ones)|(slash-ones))&^eight&highs != 0
}

// escape checks the escape sequence at data[i] and says how long it is.
func (c *checker) escape(i int) (length int, ok bool) {
	if i+1 >= len(c.data) {
		return 0, c.fail(i, "not valid JSON: a string without its end")
	}
	switch c.data[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, true
	case 'u':
	default:
		return 0, c.fail(i, "not valid JSON: unknown escape sequence")
	}
	unit, ok := hex4(c.data, i+2)
	switch {
	case !ok:
		return 0, c.fail(i, "not valid JSON: \\u without four hexadecimal digits")
	case unit == 0:
		return 0, c.fail(i, "a NUL character (\\u0000) in a string, which cannot be stored")
	case unit < 0xD800 || unit > 0xDFFF:
		return 6, true
	case unit < 0xDC00 && i+7 < len(c.data) && c.data[i+6] == '\\' && c.data[i+7] == 'u':
		if low, ok := hex4(c.data, i+8); ok && low >= 0xDC00 && low <= 0xDFFF {
			return 12, true
		}
	}
	return 0, c.fail(i, "half of a surrogate pair (\\u%04x) in a string, which cannot be stored", unit)
}

// hex4 reads four hexadecimal digits at data[i].
func hex4(data []byte, i int) (rune, bool) {
	if i+4 > len(data) {
		return 0, false
	}
	var unit rune
	for _, b := range data[i : i+4] {
		switch {
		case b >= '0' && b <= '9':
			unit = unit<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			unit = unit<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			unit = unit<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

// number reads a number literal and checks its bounds.
func (c *checker) number() bool {
	start := c.pos
	if c.data[c.pos] == '-' {
		c.pos++
	}
	whole := c.pos
	if c.digits() == 0 {
		return c.unexpected("a digit")
	}
	if c.data[whole] == '0' && c.pos > whole+1 {
		return c.fail(whole, "not valid JSON: a number with a leading zero")
	}
	if c.pos < len(c.data) && c.data[c.pos] == '.' {
		c.pos++
		if c.digits() == 0 {
			return c.unexpected("a digit")
		}
	}
	exponent := c.pos < len(c.data) && c.data[c.pos]|0x20 == 'e'
	if exponent {
		c.pos++
		if c.pos < len(c.data) && (c.data[c.pos] == '+' || c.data[c.pos] == '-') {
			c.pos++
		}
		if c.digits() == 0 {
			return c.unexpected("a digit")
		}
	}
	if length := c.pos - start; length > c.maxNumber {
		return c.fail(start, "a number of %d characters, at most %d are allowed", length, c.maxNumber)
	}
	if exponent && !c.bounded(c.data[start:c.pos]) {
		return c.fail(start, "a number with an exponent beyond ±%d", MaxNumber)
	}
	return true
}

// digits skips digits and counts them.
func (c *checker) digits() int {
	start := c.pos
	for c.pos < len(c.data) && c.data[c.pos] >= '0' && c.data[c.pos] <= '9' {
		c.pos++
	}
	return c.pos - start
}

// bounded checks a literal that has an exponent. Without one its length is bound enough.
func (c *checker) bounded(literal []byte) bool {
	var buffer [64]byte
	n := parseDecimal(buffer[:0], literal)
	magnitude := n.exponent // of 0, too: PostgreSQL would keep the places of 0e-99999
	if len(n.digits) > 0 {
		magnitude = n.magnitude()
	}
	return magnitude >= -MaxNumber && magnitude <= MaxNumber
}
