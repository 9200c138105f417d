package api

// Step is a transition of a task. GET /task/{id}/history answers with them in an array, oldest first.
type Step struct {
	At Time `json:"at"`
	// Cause is one of: created, dependencies met, parent failed, claimed, on_start accepted, on_start failed, finished by
	// worker, timed out, canceled, paused, resumed, claim taken over.
	Cause string `json:"cause"`
	// From is null for the first. Here a status may also be Claimed: picked, its on_start on its way.
	From *string `json:"from"`
	To   string  `json:"to"`
}
