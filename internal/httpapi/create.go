package httpapi

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"taskrunner/api"
	"taskrunner/internal/task"
)

// createTasks is POST /task.
func (s *server) createTasks(w http.ResponseWriter, r *http.Request) error {
	sender, err := requester(r)
	if err != nil {
		return s.refuseBatch(r, s.NewID(), err)
	}
	body, err := s.body(w, r)
	if err != nil {
		return s.refuseBatch(r, s.NewID(), err)
	}
	batch, err := task.ParseBatch(body, task.ParseParams{
		MaxTasks: s.MaxTasksPerBatch, NewID: s.NewID, CheckURL: s.CheckURL,
	})
	if err != nil {
		return s.refuseBatch(r, batch.ID, err)
	}
	batch.Requester = sender
	if len(batch.Tasks) == 0 {
		w.Header().Set("X-Batch-ID", batch.ID.String())
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	states, err := s.Store.Create(r.Context(), batch)
	if err != nil {
		return err
	}
	s.OnCreated()
	w.Header().Set("X-Batch-ID", batch.ID.String())
	writeCreated(w, batch, states, wantsMinimal(r.Header))
	return nil
}

// refuseBatch gives a client error the id that was meant for the batch.
func (s *server) refuseBatch(r *http.Request, id task.ID, err error) error {
	f, ok := explain(r, err)
	if !ok {
		return err
	}
	f.batch = id.String()
	return f
}

func writeCreated(w http.ResponseWriter, batch *task.Batch, states []task.State, minimal bool) {
	if minimal {
		w.Header().Set("Preference-Applied", "return=minimal")
	}
	out := newStream(w, http.StatusCreated, len(batch.Tasks))
	defer out.end()
	if minimal {
		writeArray(out, len(batch.Tasks), func(i int) api.CreatedTask {
			return api.CreatedTask{ID: batch.Tasks[i].ID.String(), LocalID: batch.Tasks[i].LocalID}
		})
		return
	}
	writeArray(out, len(batch.Tasks), func(i int) *api.Task {
		t := batch.Tasks[i]
		full := fullTask(t, &states[i], nil, func(d int) task.Status {
			return states[place(batch.Tasks, t.Dependencies[d].Parent)].Status
		})
		return &full
	})
}

// place finds a task of the batch, whose ids sort in request order.
func place(tasks []*task.Task, id task.ID) int {
	i, _ := slices.BinarySearchFunc(tasks, id, func(t *task.Task, id task.ID) int { return bytes.Compare(t.ID[:], id[:]) })
	return i
}

// maxRequester is in characters.
const maxRequester = 255

// requester is who says to have made the request: the header X-Requester, else the header or the query's requester.
func requester(r *http.Request) (string, error) {
	name := r.Header.Get("X-Requester")
	if name == "" {
		name = r.Header.Get("Requester")
	}
	if name == "" && strings.Contains(r.URL.RawQuery, "requester") {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", invalidf("the query is not well-formed")
		}
		name = query.Get("requester")
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", invalidf("requester: must be UTF-8 without control characters")
	}
	if n := utf8.RuneCountInString(name); n > maxRequester {
		return "", invalidf("requester: must have at most %d characters, has %d", maxRequester, n)
	}
	return name, nil
}

// wantsMinimal reads Prefer (RFC 7240): a list of preferences, of which the first return counts.
func wantsMinimal(h http.Header) bool {
	for _, line := range h.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, value, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.TrimSpace(name), "return") {
				return strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "minimal")
			}
		}
	}
	return false
}
