// Package e2e holds the end-to-end tests: the whole service, over real HTTP, on real databases, with a receiver that
// behaves like workers do, and with processes that are killed. It has no code besides its tests.
package e2e
