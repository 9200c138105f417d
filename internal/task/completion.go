package task

import (
	"encoding/json"
	"fmt"
	"time"

	"taskrunner/internal/jsonread"
)

// Completion is how a batch ended: the end of its last task, and of how many tasks there was which.
type Completion struct {
	Batch                      ID
	Success, Failure, Canceled int
	At                         time.Time
}

// Body is what an action of the batch sends: the members of given, an object or nil, and with them batch_id, counts and
// completed_at, which are always those of the completion.
func (c *Completion) Body(given json.RawMessage) json.RawMessage {
	out := []byte{'{'}
	if given != nil {
		for name, value := range jsonread.Root(given).Members {
			switch string(name) {
			case "batch_id", "counts", "completed_at":
				continue
			}
			out = append(jsonread.AppendString(out, string(name)), ':')
			out = append(append(out, value.Raw()...), ',')
		}
	}
	return fmt.Appendf(out, `"batch_id":"%s","counts":{"success":%d,"failure":%d,"canceled":%d},"completed_at":"%s"}`,
		c.Batch, c.Success, c.Failure, c.Canceled, c.At.UTC().Format("2006-01-02T15:04:05.000000Z"))
}
