package store

import (
	"slices"
	"time"

	"taskrunner/internal/task"
)

// BatchRow is a batch in a list whose tasks are still to be counted.
type BatchRow struct {
	BatchItem
	Late int64 // see [BatchVersion]
}

// BatchGroup counts the tasks of one kind and status of a batch.
type BatchGroup struct {
	Batch     task.ID
	Kind      string
	Status    task.Status
	Tasks     int
	UpdatedAt time.Time // the last activity of any of them
}

// Recall gives rows the counts of the batches that ended knows, and returns the others.
func Recall(rows []BatchRow, ended *EndedBatches[BatchItem]) (uncounted []task.ID) {
	for i := range rows {
		b := &rows[i]
		known, ok := ended.Get(BatchVersion{b.ID, b.Late})
		if !ok {
			uncounted = append(uncounted, b.ID)
			continue
		}
		known.BatchLabels = b.BatchLabels
		b.BatchItem = known
	}
	return uncounted
}

// CountBatches makes items of rows; groups have the tasks of those that [Recall] returned. Those of them that have ended are
// remembered.
func CountBatches(rows []BatchRow, groups []BatchGroup, ended *EndedBatches[BatchItem]) []BatchItem {
	counted := map[task.ID][]BatchGroup{}
	for _, g := range groups {
		counted[g.Batch] = append(counted[g.Batch], g)
	}
	items := make([]BatchItem, len(rows))
	for i := range rows {
		b := &rows[i]
		if groups := counted[b.ID]; groups != nil {
			b.count(groups)
			known := b.BatchItem
			known.BatchLabels = BatchLabels{}
			ended.Put(BatchVersion{b.ID, b.Late}, b.Counts, known, len(b.Kinds))
		}
		items[i] = b.BatchItem
	}
	return items
}

func (b *BatchItem) count(groups []BatchGroup) {
	b.Counts = map[task.Status]int{}
	for _, g := range groups {
		b.Tasks += g.Tasks
		b.Counts[g.Status] += g.Tasks
		b.Kinds = append(b.Kinds, g.Kind)
		if g.UpdatedAt.After(b.UpdatedAt) {
			b.UpdatedAt = g.UpdatedAt
		}
	}
	slices.Sort(b.Kinds)
	b.Kinds = slices.Compact(b.Kinds)
}
