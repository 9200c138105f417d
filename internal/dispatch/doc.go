// Package dispatch sends webhooks: on_start for tasks that the pump has claimed, end and cancel actions of tasks,
// and actions of batches, out of the store's outbox. It is stage 4 on the way of a task: claims and deliveries come in,
// outcomes and attempts go out.
//
//	guard → send → classify → retry or report
//
// Invariants:
//
//   - No more than a window of requests is out over all hosts, and no more than a host window to one host, for
//     on_start and for the outbox each. A slow host holds up nobody but itself: as long as there is any room, there is some
//     for a host that has nothing out. Neither kind starves the other.
//   - While a host's breaker is open nothing goes to it, and then one request at a time until one succeeds. No on_start fails
//     for want of its host meanwhile.
//   - No request goes to an address that the guard refuses. It is asked when a connection is dialed, with the
//     address that the name has resolved to.
//   - An on_start that was answered is settled, and an attempt that was made is recorded, however long the database is
//     away: both are repeated while the process lives. If it dies, the lease runs out and another process sends again
//     with the same Idempotency-Key.
//   - What is told about a failure holds no header value, no query and no user name or password of a URL.
package dispatch
