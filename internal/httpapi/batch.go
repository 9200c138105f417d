package httpapi

import (
	"net/http"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// getBatch is GET /batch/{id}.
func (s *server) getBatch(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	b, err := s.Store.Batch(r.Context(), id)
	if err != nil {
		return missing(err, "batch", id)
	}
	return writeJSON(w, http.StatusOK, &api.Batch{
		BatchID: b.ID.String(), Requester: b.Requester, Scope: b.Scope, Metadata: b.Metadata, CreatedAt: at(b.CreatedAt),
		TotalTasks: b.Tasks, TotalSuccess: b.Success, TotalFailures: b.Failures, TotalExpected: b.Expected,
		StatusCounts: statusCounts(b.Counts), Actions: batchActions(b),
	})
}

// stopBatch is DELETE /batch/{id}. A body is not looked at.
func (s *server) stopBatch(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	stopped, err := s.Settler.StopBatch(r.Context(), id)
	if err != nil {
		return missing(err, "batch", id)
	}
	n := stopped.Canceled
	return writeJSON(w, http.StatusOK, &api.StoppedBatch{
		BatchID: id.String(), CanceledWaiting: n[task.Waiting], CanceledPending: n[task.Pending],
		CanceledClaimed: n[task.Claimed], CanceledRunning: n[task.Running], CanceledPaused: n[task.Paused],
		AlreadyTerminal: stopped.Ended,
	})
}

func statusCounts(n map[task.Status]int) api.StatusCounts {
	return api.StatusCounts{
		Waiting: n[task.Waiting], Pending: n[task.Pending], Claimed: n[task.Claimed], Running: n[task.Running],
		Success: n[task.Success], Failure: n[task.Failure], Paused: n[task.Paused], Canceled: n[task.Canceled],
	}
}

// getDAG is GET /dag/{batch_id}. A batch may be large, so the answer is streamed, and reading it takes a place among
// the lists.
func (s *server) getDAG(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "batch_id")
	if err != nil {
		return err
	}
	dag, err := s.Store.DAG(r.Context(), id)
	if err != nil {
		return missing(err, "batch", id)
	}
	writeDAG(newStream(w, http.StatusOK, len(dag.Items)), dag)
	return nil
}

// writeDAG writes an [api.DAG].
func writeDAG(out stream, dag *store.DAG) {
	defer out.end()
	out.text(`{"tasks":`)
	writeArray(out, len(dag.Items), func(i int) api.TaskSummary { return summary(&dag.Items[i].Task, &dag.Items[i].State) })
	out.text(`,"links":`)
	writeArray(out, len(dag.Links), func(i int) api.Link {
		link := &dag.Links[i]
		return api.Link{
			ParentID: link.Parent.String(), ChildID: link.Child.String(), RequiresSuccess: link.RequiresSuccess,
		}
	})
	out.text("}\n")
}
