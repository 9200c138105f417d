package store

import (
	"slices"
	"time"

	"taskrunner/internal/task"
)

// BatchGroup counts the tasks of one kind and status of a batch.
type BatchGroup struct {
	Batch     task.ID
	CreatedAt time.Time // of the batch
	Kind      string
	Status    task.Status
	Tasks     int
	UpdatedAt time.Time // the last activity of any of them
}

// AddLabels gives labels to those of items that are the batch id.
func AddLabels(items []BatchItem, id task.ID, labels BatchLabels) {
	for i := range items {
		if items[i].ID == id {
			items[i].BatchLabels = labels
		}
	}
}

// BatchIDs are those of items.
func BatchIDs(items []BatchItem) []task.ID {
	ids := make([]task.ID, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	return ids
}

// BatchItems makes the items of a list of its groups; those of one batch stand together.
func BatchItems(groups []BatchGroup) []BatchItem {
	var items []BatchItem
	for _, g := range groups {
		if len(items) == 0 || items[len(items)-1].ID != g.Batch {
			items = append(items, BatchItem{ID: g.Batch, CreatedAt: g.CreatedAt, Counts: map[task.Status]int{}})
		}
		b := &items[len(items)-1]
		b.Tasks += g.Tasks
		b.Counts[g.Status] += g.Tasks
		b.Kinds = append(b.Kinds, g.Kind)
		if g.UpdatedAt.After(b.UpdatedAt) {
			b.UpdatedAt = g.UpdatedAt
		}
	}
	for i := range items {
		slices.Sort(items[i].Kinds)
		items[i].Kinds = slices.Compact(items[i].Kinds)
	}
	return items
}
