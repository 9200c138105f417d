package jsonread

import (
	"bytes"
	"strconv"
)

// MaxNumber is how many characters a number may be written in, and how far from 0 the decimal exponent of its value (the
// x of d.ddd·10^x) may be. Every database keeps such numbers exactly, and nobody needs larger ones.
const MaxNumber = 400

// AppendNumber appends the one spelling of the value of a number literal: 1, 1.0, 1e0 and 10e-1 are all "1", and -0 is
// "0". No digit is lost, and none is written that only a large exponent would ask for: the result has at most 20
// characters more than the literal. literal is a valid JSON number.
func AppendNumber(dst, literal []byte) []byte {
	if plainInteger(literal) {
		return append(dst, literal...)
	}
	var buffer [64]byte
	n := parseDecimal(buffer[:0], literal)
	if len(n.digits) == 0 {
		return append(dst, '0')
	}
	if n.negative {
		dst = append(dst, '-')
	}
	first := n.magnitude()
	switch {
	case first < -7 || first > 20:
		dst = append(dst, n.digits[0])
		if len(n.digits) > 1 {
			dst = append(append(dst, '.'), n.digits[1:]...)
		}
		return strconv.AppendInt(append(dst, 'e'), int64(first), 10)
	case n.exponent >= 0:
		return appendZeros(append(dst, n.digits...), n.exponent)
	case first >= 0:
		dst = append(append(dst, n.digits[:first+1]...), '.')
		return append(dst, n.digits[first+1:]...)
	default:
		return append(appendZeros(append(dst, "0."...), -first-1), n.digits...)
	}
}

// plainInteger reports whether literal is its own canonical spelling: an integer of at most 18 digits, not -0.
func plainInteger(literal []byte) bool {
	if len(literal) == 0 || len(literal) > 18 || len(literal) == 2 && literal[0] == '-' && literal[1] == '0' {
		return false
	}
	for i, c := range literal {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return false
		}
	}
	return true
}

func appendZeros(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, '0')
	}
	return dst
}

// decimal is digits · 10^exponent. digits has no zeros at its ends; it is empty for 0.
type decimal struct {
	negative bool
	digits   []byte
	exponent int
}

// magnitude is the x of d.ddd·10^x. It is meaningless for 0.
func (d decimal) magnitude() int { return len(d.digits) - 1 + d.exponent }

// maxExponent is where exponents saturate: far out of every bound, and far from overflowing an int.
const maxExponent = 1 << 30

// parseDecimal reads a valid literal. The digits are appended to buffer, which spares an allocation.
func parseDecimal(buffer, literal []byte) decimal {
	n := decimal{negative: len(literal) > 0 && literal[0] == '-'}
	if n.negative {
		literal = literal[1:]
	}
	if e := bytes.IndexAny(literal, "eE"); e >= 0 {
		n.exponent = parseExponent(literal[e+1:])
		literal = literal[:e]
	}
	whole, fraction, _ := bytes.Cut(literal, []byte{'.'})
	digits := append(append(buffer, whole...), fraction...)
	n.exponent -= len(fraction)
	digits = bytes.TrimLeft(digits, "0")
	n.digits = bytes.TrimRight(digits, "0")
	n.exponent += len(digits) - len(n.digits)
	return n
}

func parseExponent(text []byte) int {
	negative := len(text) > 0 && text[0] == '-'
	exponent := 0
	for _, c := range text {
		if c >= '0' && c <= '9' {
			exponent = min(exponent*10+int(c-'0'), maxExponent)
		}
	}
	if negative {
		return -exponent
	}
	return exponent
}
