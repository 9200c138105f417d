// Package bench is "taskrunner bench": it drives a service as its clients and its workers do, over HTTP, and measures it.
//
// It stands outside the flow of a task, at both ends of it. A workload is made of loads, crowds of tasks that behave alike:
// what they are, how they are posted, what their worker does, and what has been seen of each. Beside the service the floor is
// measured: the same webhooks and callbacks against a stub that does nothing else, and the same rows written by a few
// statements of SQL, in the same run, with the same generator. What the service needs beyond that is its own.
//
// Invariants:
//   - Every run checks its results: every task has ended as it should, each was started once, no limit was exceeded as its
//     worker saw it, sums are exact. A wrong run has no figures and makes the command fail.
//   - Latencies under a given rate count from when a request was due, not from when it got its turn to be sent.
//   - The service and the stub are processes of their own, so that their CPU time is told apart from the generator's.
package bench
