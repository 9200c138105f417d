package settle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// EditRules gives rules to the tasks of that kind of a batch that have not ended, and returns how many have them now. It
// answers [store.ErrNotFound] for an unknown batch, and [task.Problems], with nothing changed, when some tasks lack what
// the rules need. A task that ends meanwhile, or loses a field, is left alone.
//
// When it fails otherwise, or ctx ends, some tasks have the new rules and others have not; to call it again is safe.
func (s *Settler) EditRules(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (int, error) {
	tasks, err := s.options.Store.ToEdit(ctx, batch, kind, rules)
	if err != nil {
		return 0, err
	}
	if len(tasks.Lacking) > 0 {
		return 0, lacking(tasks.Lacking)
	}
	edited := 0
	for ids := range slices.Chunk(tasks.IDs, batchChunk) {
		outcomes := make([]task.Outcome, len(ids))
		for i, id := range ids {
			outcomes[i] = task.Outcome{ID: id, Kind: task.EditRules, Rules: rules}
		}
		results, err := s.Settle(ctx, outcomes...)
		if err != nil {
			return edited, err
		}
		for i := range results {
			switch err := results[i].Err; {
			case err == nil && !results[i].From.Terminal():
				edited++
			case err != nil && !errors.As(err, new(*task.Refusal)):
				return edited, err
			}
		}
	}
	return edited, nil
}

func lacking(tasks []store.Lacking) task.Problems {
	var problems task.Problems
	for _, l := range tasks {
		message := fmt.Sprintf("task %s has no expected_count", l.ID)
		if l.Field != "" {
			message = fmt.Sprintf("the metadata of task %s has no field %q", l.ID, l.Field)
		}
		problems = append(problems, task.Problem{Path: fmt.Sprintf("rules[%d]", l.Rule), Message: message})
	}
	return problems
}
