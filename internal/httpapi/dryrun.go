package httpapi

import (
	"net/url"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// wantsDryRun reads the query's dry_run. A query that cannot be read is refused, whatever it seems to say: who asked for
// a dry run must not get a batch.
func wantsDryRun(rawQuery string) (bool, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return false, invalidf("the query is not well-formed")
	}
	switch values := query["dry_run"]; {
	case len(values) == 0:
		return false, nil
	case len(values) > 1:
		return false, invalidf("dry_run: must be given once, is given %d times", len(values))
	case values[0] != "true" && values[0] != "false":
		return false, invalidf("dry_run: must be true or false, is %s", jsonread.Quote(values[0]))
	default:
		return values[0] == "true", nil
	}
}

// withoutDuplicates is b but for what duplicates something of the same request. With an error it is b.
func withoutDuplicates(b *task.Batch) (*task.Batch, error) {
	d := store.NewDedupe([]store.Create{{Batch: b}})
	if d == nil {
		return b, nil
	}
	left, err := d.Decide()
	if err != nil {
		return b, err
	}
	return left.Creates[0].Batch, nil
}

func dryRun(b *task.Batch) *api.DryRun {
	o := b.Outline()
	names := func(places []int) []string {
		ids := make([]string, len(places))
		for i, place := range places {
			ids[i] = b.Tasks[place].LocalID
		}
		return ids
	}
	answer := &api.DryRun{
		Tasks: len(b.Tasks), Links: o.Links, Waves: make([][]string, len(o.Waves)), LongestPath: names(o.LongestPath),
		Limits: make([]api.DryRunLimit, len(o.Limits)), LimitsOmitted: o.LimitsOmitted,
	}
	for i, wave := range o.Waves {
		answer.Waves[i] = names(wave)
	}
	for i := range o.Limits {
		answer.Limits[i] = dryRunLimit(&o.Limits[i])
	}
	return answer
}

func dryRunLimit(l *task.Limit) api.DryRunLimit {
	return api.DryRunLimit{
		Gate: gate(&l.Shape, l.Gate.Values), Max: l.Max, Tasks: l.Tasks, AtOnce: l.AtOnce, Binds: l.Binds(),
	}
}
