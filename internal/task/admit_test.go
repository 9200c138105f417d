package task

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestRoom(t *testing.T) {
	t.Parallel()
	busy := func(n int) map[string]int { return map[string]int{"a": n} }
	for _, c := range []struct {
		room Room
		a, b int
	}{
		{Room{}, 0, 0},
		{Room{Total: 9, PerHost: 4, Busy: busy(3)}, 1, 4},
		{Room{Total: 2, PerHost: 4, Busy: busy(1)}, 2, 2},
		{Room{Total: 9, PerHost: 4, Busy: busy(5)}, 0, 4},
		{Room{Total: 9, PerHost: 4, Shut: busy(0)}, 0, 4},
		{Room{Total: 9, PerHost: 4, Busy: busy(2), Shut: busy(1)}, 1, 4},
		{Room{Total: 9, PerHost: 4, Busy: busy(4), Shut: busy(1)}, 0, 4},
		{Room{Total: 2048, Window: 2048, PerHost: 256}, 256, 256},
		{Room{Total: 2048 - 200, Window: 2048, PerHost: 256, Busy: busy(200)}, 56, 231}, // all that is out is a's own
		{Room{Total: 1024, Window: 2048, PerHost: 256, Busy: busy(100)}, 41, 128},
		{Room{Total: 1, Window: 2048, PerHost: 256, Busy: busy(1)}, 0, 1}, // the last one is for a host that has none
		{Room{Total: 5, Window: 10, PerHost: 10, Busy: busy(5)}, 5, 5},    // one host may have it all
		{Room{Total: 5, Window: 10, PerHost: 100}, 5, 5},
	} {
		if a, b := c.room.Host("a"), c.room.Host("b"); a != c.a || b != c.b {
			t.Errorf("%+v: %d for a, %d for b, want %d and %d", c.room, a, b, c.a, c.b)
		}
	}
}

func TestRoomEased(t *testing.T) {
	t.Parallel()
	busy := func(n int) map[string]int { return map[string]int{"a": n} }
	for name, c := range map[string]struct {
		before, now  Room
		short, eased bool
	}{
		"nothing short":         {Room{Total: 5, PerHost: 3, Busy: busy(2)}, Room{Total: 6, PerHost: 3, Busy: busy(1)}, false, false},
		"total still short":     {Room{PerHost: 3}, Room{PerHost: 3}, true, false},
		"total eased":           {Room{PerHost: 3}, Room{Total: 1, PerHost: 3}, true, true},
		"host still short":      {Room{Total: 5, PerHost: 3, Busy: busy(3)}, Room{Total: 5, PerHost: 3, Busy: busy(3)}, true, false},
		"host eased":            {Room{Total: 5, PerHost: 3, Busy: busy(3)}, Room{Total: 6, PerHost: 3, Busy: busy(2)}, true, true},
		"host eased, total not": {Room{Total: 5, PerHost: 3, Busy: busy(3)}, Room{PerHost: 3, Busy: busy(2)}, true, false},
		"share eased":           {Room{Total: 8, Window: 16, PerHost: 8, Busy: busy(5)}, Room{Total: 9, Window: 16, PerHost: 8, Busy: busy(5)}, false, false},
		"share short":           {Room{Total: 4, Window: 16, PerHost: 8, Busy: busy(4)}, Room{Total: 6, Window: 16, PerHost: 8, Busy: busy(4)}, true, true},
		"shut":                  {Room{Total: 5, PerHost: 3, Busy: busy(3), Shut: busy(0)}, Room{Total: 5, PerHost: 3}, false, false},
	} {
		if short, eased := c.before.Short(), c.before.Eased(c.now); short != c.short || eased != c.eased {
			t.Errorf("%s: short %v, eased %v", name, short, eased)
		}
	}
}

// Whatever hosts want, in whatever order: nobody has more than a window, a host that has nothing finds room as long as
// there is any, those that are shut get what they may, and what is kept has no room.
func TestAdmitShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		window, perHost := rapid.IntRange(1, 64).Draw(rt, "window"), rapid.IntRange(1, 64).Draw(rt, "per host")
		room := Room{Total: window, Window: window, PerHost: perHost, Busy: map[string]int{}, Shut: map[string]int{"h0": rapid.IntRange(0, 1).Draw(rt, "shut")}}
		for range rapid.IntRange(1, 5).Draw(rt, "ticks") {
			var candidates []*Candidate
			for i := range rapid.IntRange(0, 100).Draw(rt, "candidates") {
				candidates = append(candidates, &Candidate{
					ID: ID{byte(i >> 8), byte(i)}, Host: fmt.Sprint("h", rapid.IntRange(0, 12).Draw(rt, "host")), Priority: rapid.IntRange(0, 2).Draw(rt, "priority"),
				})
			}
			before := room.Own()
			a := Admit(candidates, map[GateID]int{}, room)
			if room.Total != before.Total || len(room.Busy) != len(before.Busy) {
				rt.Fatal("Admit changed the room that it was given")
			}
			for _, c := range a.Start {
				had := room.Busy[c.Host]
				if limit := room.Share(had); had >= limit && limit > 0 {
					rt.Fatalf("%s has %d, of which it may have %d", c.Host, had, limit)
				}
				room.Take(c.Host)
			}
			if room.Total < 0 {
				rt.Fatalf("%d too many over all", -room.Total)
			}
			for host, n := range room.Busy {
				if n > perHost {
					rt.Fatalf("%s has %d of %d", host, n, perHost)
				}
			}
			if room.Shut["h0"] < 0 {
				rt.Fatal("more than one probe")
			}
			for _, c := range a.Keep {
				if room.Host(c.Host) > 0 {
					rt.Fatalf("one is kept for %s, for which there is room: %+v", c.Host, room)
				}
			}
			if room.Total > 0 && room.Host("new") == 0 {
				rt.Fatalf("no room for a new host: %+v", room)
			}
		}
	})
}

// However many hosts hang with all they can get, another one finds room.
func TestAlwaysRoomForAnother(t *testing.T) {
	t.Parallel()
	room := Room{Total: 2048, Window: 2048, PerHost: 256, Busy: map[string]int{}}
	for n := range 40 {
		host := fmt.Sprint("h", n)
		if got := room.Host(host); got < 1 || n < 16 && got < 30 {
			t.Fatalf("the host after %d that hang has room for %d", n, got)
		}
		for room.Host(host) > 0 {
			room.Take(host)
		}
	}
	// Hungry at once, they have the same.
	room = Room{Total: 2048, Window: 2048, PerHost: 256, Busy: map[string]int{}}
	for taken := true; taken; {
		taken = false
		for n := range 32 {
			if host := fmt.Sprint("h", n); room.Host(host) > 0 {
				room.Take(host)
				taken = true
			}
		}
	}
	for host, n := range room.Busy {
		if n < 52 || n > 53 { // 2048 / (32 + 8 - 1)
			t.Errorf("%s has %d", host, n)
		}
	}
	if room.Host("new") < 40 {
		t.Errorf("a new one has %d", room.Host("new"))
	}
}
