package api

import "time"

// Time is a moment on the wire: RFC 3339 in UTC with exactly six fractional digits. The zero value is null: it has not
// come to that.
type Time struct{ time.Time }

const timeLayout = `"2006-01-02T15:04:05.000000Z"`

// MarshalJSON never fails. What is finer than a microsecond is cut off.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().AppendFormat(make([]byte, 0, len(timeLayout)), timeLayout), nil
}
