package store

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/task"
)

// NewID makes UUIDv7, each greater than the one before within this process. Safe for concurrent use.
func NewID() task.ID { return uuid.Must(uuid.NewV7()) }

func compareIDs(a, b task.ID) int { return bytes.Compare(a[:], b[:]) }

// sortIDs sorts ids in place and drops repeats.
func sortIDs(ids []task.ID) []task.ID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

// ClockSlack is by how much the time in an id may differ from when its task was created: an id is made by the process
// that took the request, with its own clock and before the request is read to its end, the time is the database's.
const ClockSlack = 5 * time.Minute

// IDsBetween returns bounds for the ids of what was created between two times, which may be zero for none: an id is
// greater than after, unless that is zero, and less than before.
func IDsBetween(from, to time.Time) (after, before task.ID) {
	if !from.IsZero() {
		after = firstID(from.Add(-ClockSlack))
	}
	if to.IsZero() {
		for i := range before {
			before[i] = 0xff
		}
		return after, before
	}
	return after, firstID(to.Add(ClockSlack))
}

// SurelyBetween returns ids from first on, and less than last, that can only be of what was created between two times. Where a
// time is zero there is no such bound, and the id of it is none either.
func SurelyBetween(from, to time.Time) (first, last task.ID) {
	if !from.IsZero() {
		first = firstID(from.Add(ClockSlack + time.Millisecond))
	}
	if !to.IsZero() {
		last = firstID(to.Add(-ClockSlack))
	}
	return first, last
}

// firstID is less than every UUIDv7 of that millisecond, and greater than those before.
func firstID(at time.Time) task.ID {
	var id task.ID
	var millis [8]byte
	binary.BigEndian.PutUint64(millis[:], uint64(max(0, at.UnixMilli())))
	copy(id[:6], millis[2:])
	return id
}
