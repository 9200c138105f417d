package httpapi

import (
	"crypto/sha256"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// createTasks is POST /task.
func (s *server) createTasks(w http.ResponseWriter, r *http.Request) error {
	dry, err := wantsDryRun(r.URL.RawQuery)
	if err != nil {
		return s.refuseBatch(r, s.NewID(), err)
	}
	batch, key, err := s.readBatch(w, r)
	if err != nil {
		return s.refuseBatch(r, batch.ID, err)
	}
	if dry {
		if batch, err = withoutDuplicates(batch); err != nil {
			return s.refuseBatch(r, batch.ID, err)
		}
		return writeJSON(w, http.StatusOK, dryRun(batch))
	}
	created := store.Created{Batch: batch.ID}
	if len(batch.Tasks) > 0 || key != nil { // a key stands for nothing created, too
		if created, err = s.Creator.Create(r.Context(), batch, key); err != nil {
			return s.refuseBatch(r, batch.ID, err)
		}
	}
	var known []store.Detail
	if created.Replayed {
		if known, err = s.Store.Details(r.Context(), created.Batch); err != nil {
			return err
		}
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.Header().Set("X-Batch-ID", created.Batch.String())
	writeCreated(w, &created, known, wantsMinimal(r.Header))
	return nil
}

// readBatch reads all that a create is about. The batch is never nil, so that an answer can name it; key is nil when
// there is none.
func (s *server) readBatch(w http.ResponseWriter, r *http.Request) (*task.Batch, *store.Idempotency, error) {
	sender, err := requester(r)
	if err != nil {
		return &task.Batch{ID: s.NewID()}, nil, err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return &task.Batch{ID: s.NewID()}, nil, err
	}
	body, err := s.openBody(w, r)
	if err != nil {
		return &task.Batch{ID: s.NewID()}, nil, err
	}
	digest := sha256.New()
	if key != nil {
		body = io.TeeReader(body, digest)
	}
	batch, err := task.ParseBatch(body, task.ParseParams{
		MaxTasks: s.MaxTasksPerBatch, NewID: s.NewID, CheckURL: s.CheckURL,
	})
	if err != nil {
		_, _ = io.Copy(io.Discard, body) // who is still sending would not read the answer
	}
	if key != nil {
		digest.Sum(key.Digest[:0])
	}
	batch.Requester = sender
	return batch, key, err
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

// writeCreated answers with the tasks that are there now: those that were created, or known, that were created before with its
// key.
func writeCreated(w http.ResponseWriter, created *store.Created, known []store.Detail, minimal bool) {
	n, status := len(created.Kept), http.StatusCreated
	facts := func(i int) *task.Task { return created.Kept[i] }
	if created.Replayed {
		n, status = len(known), http.StatusOK
		facts = func(i int) *task.Task { return &known[i].Task }
	}
	if n == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if minimal {
		w.Header().Set("Preference-Applied", "return=minimal")
	}
	out := newStream(w, status, n)
	defer out.end()
	if minimal {
		writeArray(out, n, func(i int) api.CreatedTask {
			return api.CreatedTask{ID: facts(i).ID.String(), LocalID: facts(i).LocalID}
		})
		return
	}
	writeArray(out, n, func(i int) *api.Task {
		if created.Replayed {
			d := &known[i]
			return new(fullTask(&d.Task, &d.State, d.Deliveries, func(p int) task.Status { return d.Parents[p] }))
		}
		t := created.Kept[i]
		return new(fullTask(t, new(created.State(i)), nil, func(d int) task.Status { return statusOf(created, t.Dependencies[d].Parent) }))
	})
}

// statusOf finds a task of the batch, or of another one.
func statusOf(created *store.Created, id task.ID) task.Status {
	i, ok := store.PlaceOf(created.Kept, id)
	if !ok {
		return created.Parents[id]
	}
	return created.State(i).Status
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

// maxKey is in characters, which are bytes.
const maxKey = 255

// idempotencyKey reads the header, whose value is taken as it stands; nil: there is none.
func idempotencyKey(h http.Header) (*store.Idempotency, error) {
	const name = "Idempotency-Key"
	values := h.Values(name)
	if len(values) == 0 {
		return nil, nil //nolint:nilnil // no key is nothing wrong
	}
	if len(values) > 1 {
		return nil, invalidf("%s: must be sent once, was sent %d times", name, len(values))
	}
	key := values[0]
	if n := len(key); n < 1 || n > maxKey {
		return nil, invalidf("%s: must have 1 to %d characters, has %d", name, maxKey, n)
	}
	if strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return nil, invalidf("%s: must be printable ASCII", name)
	}
	return &store.Idempotency{Key: key}, nil
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
