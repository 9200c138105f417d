package task

import "taskrunner/internal/jsonread"

// MaxScope is how long a scope may be, in characters.
const MaxScope = 255

const (
	fieldTasks = iota
	fieldOnBatchComplete
	fieldScope
	fieldBatchMetadata
	batchFieldCount
)

var batchFields = []string{"tasks", "on_batch_complete", "scope", "metadata"}

// object reads the object form of a create, all but its tasks: it returns these and goes to the place where they stand.
func (b *batchParser) object(v jsonread.Value, batch *Batch) (tasks jsonread.Value) {
	var f [batchFieldCount]jsonread.Value
	b.Fields(v, batchFields, f[:])
	if v := f[fieldScope]; !v.IsNull() {
		batch.Scope = b.label("scope", v, MaxScope)
	}
	batch.Metadata, _ = b.metadata(f[fieldBatchMetadata])
	batch.OnComplete = b.actions("on_batch_complete", f[fieldOnBatchComplete], TriggerBatchComplete)
	b.Array("tasks", f[fieldTasks])
	b.Enter("tasks")
	return f[fieldTasks]
}
