// Package store says how tasks are kept: the [Store] interface, what goes in and out of it, and the plans that its
// drivers carry out.
//
// A driver decides nothing. Each of its methods is one transaction that loads rows under lock, has a plan of this
// package turn them into [Changes], and writes those set-based: the number of statements does not depend on how many
// tasks there are. [PlanCreate] plans batches, [PlanSettle] outcomes, [Tick] the pump. So the drivers cannot differ in behavior, and
// the suite in storetest runs whole on each.
//
// # Places
//
// A live task has a state row and is in at most one place: ready (may be claimed; ordered by host, priority, age),
// parked (a gate of one of its rules holds it back; ordered by gate, lane, host, priority, age) or running (it holds slots:
// Claimed, Running, or Paused from there). The place follows from the state, and whoever holds the lock on a task's
// state row owns its place too.
//
// # Gates
//
// A running row lists the gates at which its task holds a slot. Leaving the place appends a delta for each of them in
// the same transaction, so a slot is given back exactly once. Only the pump changes gates, parks and claims, and only
// one pump runs at a time over all processes. For each gate, at any committed moment:
//
//	used + sum of deltas = running rows that list it
//
// so a limit that used respects is never exceeded; folding late only admits less for a moment. A gate whose lane has
// room while tasks wait in it is dirty, which makes the pump visit it.
//
// # Batches
//
// Of a batch that has actions for its end a row says how many of its tasks have not ended. Whoever ends tasks of such a batch
// appends a delta in the same transaction, and only the pump folds deltas: whichever makes it 0 writes the deliveries.
//
// # Isolation and durability
//
// PostgreSQL: READ COMMITTED with row locks. A transaction waits for state rows in one statement, in id order, before any
// other row of a task; state rows locked later are taken with SKIP LOCKED. Rows of running are locked by whoever ends or
// pauses their tasks, and, all of them, when a new shape is counted: should these two meet the wrong way round,
// PostgreSQL undoes one and it is run again. SQLite: one writer.
// A method that returns nil has committed durably. One that returns an error has changed nothing, also when the
// connection was lost at COMMIT: the driver asks the database what became of the transaction. Creates with
// an [Idempotency] take their keys before any other lock and in one order, so that those with the same key wait for one another
// there, and never in a circle.
// Times come from the database's own clock.
package store
