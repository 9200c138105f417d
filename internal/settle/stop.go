package settle

import (
	"context"
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// batchChunk bounds the tasks of a batch that are settled in one transaction: others get theirs in between.
const batchChunk = 500

// stopReason is the failure_reason of tasks that a stop cancels.
const stopReason = "Batch stopped"

// StopBatch cancels every task of a batch that has not ended, or answers [store.ErrNotFound].
//
// A batch gets no tasks after it was created, and what has ended stays so. So the tasks that have not ended are listed
// once, and when each of them has had its cancel, nothing of the batch is left that could start: that is when the answer
// is given. Until then what workers and the pump do wins or loses task by task. Canceling itself sets nothing of the
// batch off, thanks to [store.StopOrder].
//
// When it fails, or ctx ends, some tasks are canceled and others are not; to call it again is safe.
func (s *Settler) StopBatch(ctx context.Context, batch task.ID) (store.Stopped, error) {
	stopped := store.Stopped{Canceled: map[task.Status]int{}}
	toStop, err := s.options.Store.ToStop(ctx, batch)
	if err != nil {
		return stopped, err
	}
	stopped.Ended = toStop.Tasks
	for ids := range slices.Chunk(toStop.IDs, batchChunk) {
		outcomes := make([]task.Outcome, len(ids))
		for i, id := range ids {
			outcomes[i] = task.Outcome{ID: id, Kind: task.Cancel, FailureReason: stopReason}
		}
		results, err := s.Settle(ctx, outcomes...)
		if err != nil {
			return stopped, err
		}
		for i := range results {
			if results[i].Err == nil {
				stopped.Canceled[results[i].From]++
				stopped.Ended--
			}
		}
	}
	return stopped, nil
}
