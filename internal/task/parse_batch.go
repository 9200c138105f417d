package task

import (
	"slices"

	"taskrunner/internal/jsonread"
)

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

// object reads the object form of a create. What is wrong with anything but the tasks is noted by whole.
func (b *batchParser) object(whole *parser, batch *Batch) {
	var f [batchFieldCount]jsonread.Value
	streamed := false
	for name := range b.in.Members {
		if name == batchFields[fieldTasks] && b.in.Kind() == jsonread.Array {
			streamed = true
			if b.readTasks(); b.tooMany {
				return
			}
			continue
		}
		v, _ := b.in.Value()
		if i := slices.Index(batchFields, name); i >= 0 {
			f[i] = v.Clone()
		} else {
			whole.Unknown(name, batchFields)
		}
	}
	if v := f[fieldScope]; !v.IsNull() {
		batch.Scope = whole.label("scope", v, MaxScope)
	}
	batch.Metadata, _ = whole.metadata(f[fieldBatchMetadata])
	batch.OnComplete = whole.actions("on_batch_complete", f[fieldOnBatchComplete], TriggerBatchComplete)
	if !streamed {
		whole.Array("tasks", f[fieldTasks])
	}
}
