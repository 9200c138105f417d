// Package task is the domain: what a task, a batch, a rule and an action are, which state may follow which,
// and the decisions that every store and stage shares. It is pure: no I/O, no clock, no randomness of its own.
//
// The way in is [ParseBatch]: hostile bytes become a [Batch] that is valid as a whole, or [Problems] that name
// every mistake by its path. The way on are three decisions, each a function from rows to row changes, that the
// stores carry out inside one transaction:
//
//   - [Apply] takes one [Outcome] (finished, progress, started, timed out, canceled, paused …) to a task's [State];
//   - [SettleDependencies] takes the end of a parent to a waiting child;
//   - [Admit] says which candidates start now under their rules, and at which gate the others park.
//
// Invariants:
//
//   - A state changes only along [Transitions]; the same table is the picture in the docs. What no state can be, the databases
//     refuse by CHECKs.
//   - A task is in at most one place: ready or parked while Pending, running while it holds slots (Claimed, Running,
//     or Paused from one of them), nowhere while Waiting or ended.
//   - A terminal state is final.
package task
