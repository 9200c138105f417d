// Package api holds the JSON that the service sends, as structs: what the server encodes and a client decodes. It has
// the standard library only, so that a program that talks to the service gets nothing else with it.
//
// Invariants:
//
//   - The names and shapes of members are the service's contract. Members may be added, so a reader ignores those it
//     does not know; none changes its meaning or goes away.
//   - Lists are never null, and every member is there unless its comment says that it may be left out.
//   - Ids are UUIDs in their canonical form. Durations are whole seconds.
//   - Status is one of Waiting, Pending, Running, Paused, Success, Failure, Canceled. A task that the scheduler has
//     picked and whose on_start is on its way is Pending with claimed_at set.
package api
