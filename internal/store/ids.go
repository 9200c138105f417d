package store

import (
	"bytes"
	"slices"

	"taskrunner/internal/task"
)

func compareIDs(a, b task.ID) int { return bytes.Compare(a[:], b[:]) }

// sortIDs sorts ids in place and drops repeats.
func sortIDs(ids []task.ID) []task.ID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}
