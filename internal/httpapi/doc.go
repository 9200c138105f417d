// Package httpapi is the way of a request in: decode, validate, store or settle, encode. [New] is the handler of every
// endpoint; each resource has a file of its own.
//
// Invariants:
//
//   - A handler parses, calls the store or the settler once, and encodes. It keeps nothing between requests.
//   - Every error leaves as application/problem+json, through one table from code to HTTP status. What the client did
//     wrong is told to it; what it did not is logged once, and the answer shows none of it.
//   - An answer in 2xx is sent after the store or the settler has said that the change is durable.
//   - With a token set, nothing is answered without it but the probes, and nothing else of the request is looked at.
//   - Labels of metrics come from fixed sets: a route's pattern, never a path.
//   - Bodies are bounded, and are read by jsonread alone, which refuses what two readers would read differently.
package httpapi
