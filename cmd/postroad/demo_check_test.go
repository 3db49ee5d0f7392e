package main

import (
	"testing"
	"time"
)

// TestCheckArrivals breaks a good log in each way that must be noticed.
func TestCheckArrivals(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	taken := func(at time.Duration, sequence int64) arrival {
		return arrival{At: began.Add(at), Answered: began.Add(at), Sequence: sequence, Attempt: 1, Status: 200, Applied: true}
	}
	refused := func(at time.Duration, sequence int64, status, retryAfter int) arrival {
		return arrival{At: began.Add(at), Answered: began.Add(at), Sequence: sequence, Attempt: 1, Status: status, RetryAfter: retryAfter}
	}
	good := func() []arrival {
		return []arrival{
			taken(0, 1), refused(0, 2, 429, 5), taken(5*time.Second, 2), refused(6*time.Second, 3, 500, 0), taken(7*time.Second, 3),
		}
	}
	for name, c := range map[string]struct {
		log   []arrival
		owed  int64
		wrong bool
	}{
		"good":                       {good(), 3, false},
		"a repeat after a crash":     {append(good(), refused(8*time.Second, 3, 200, 0)), 3, false},
		"one is missing at the end":  {good(), 4, true},
		"one is missing in between":  {append(good(), taken(8*time.Second, 5)), 3, true},
		"one is applied twice":       {append(good(), taken(8*time.Second, 3)), 3, true},
		"one overtakes":              {append(good()[:4], taken(7*time.Second, 4), taken(7*time.Second, 3)), 3, true},
		"nobody asked for a wait":    {append(good()[:1:1], taken(time.Second, 2), taken(time.Second, 3)), 3, true},
		"the wait was cut short":     {append(good()[:2:2], taken(4990*time.Millisecond, 2), refused(6*time.Second, 3, 500, 0), taken(7*time.Second, 3)), 3, true},
		"asked twice":                {append(good(), refused(8*time.Second, 4, 429, 5)), 3, true},
		"a signature did not verify": {append(good(), refused(8*time.Second, 4, 401, 0)), 3, true},
		"nothing came":               {nil, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := false
			for _, f := range checkArrivals(c.log, c.owed) {
				wrong = wrong || !f.ok
			}
			if wrong != c.wrong {
				t.Errorf("found %+v", checkArrivals(c.log, c.owed))
			}
		})
	}
}

func TestThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12525: "12,525", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s", n, got)
		}
	}
}
