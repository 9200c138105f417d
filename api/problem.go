package api

// ProblemType is the media type of [Problem].
const ProblemType = "application/problem+json"

// Problem answers a request that failed: RFC 9457, and beside it the members error and details.
type Problem struct {
	Type  string `json:"type"` // about:blank
	Title string `json:"title"`
	// Status is the HTTP status of the answer.
	Status int `json:"status"`
	// Error says what is wrong, in a line.
	Error string `json:"error"`
	// BatchID names a create that was refused; left out otherwise. There is no such batch.
	BatchID string `json:"batch_id,omitempty"`
	// Details are all mistakes in the request, each with its place; empty when Error says everything.
	Details []string `json:"details"`
}
