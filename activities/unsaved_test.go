package activities

import (
	"testing"
	"time"
)

func TestUnsaved(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var u unsaved
	u.settled(1, at(0))
	u.settled(1, at(10))
	first := u.submitted()
	u.settled(1, at(20))
	second := u.submitted()
	u.settled(1, at(30))
	if u.count() != 4 || u.age(at(40)) != 40*time.Millisecond {
		t.Errorf("before a commit: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(first)
	if u.count() != 2 || u.age(at(40)) != 20*time.Millisecond {
		t.Errorf("after the first: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(second)
	if u.count() != 1 || u.age(at(40)) != 10*time.Millisecond {
		t.Errorf("after the second: %d, oldest %v", u.count(), u.age(at(40)))
	}
	u.committed(u.submitted())
	if u.count() != 0 || u.age(at(40)) != 0 {
		t.Errorf("after all: %d, oldest %v", u.count(), u.age(at(40)))
	}
}

// TestFewUnsaved holds the gate's second condition to its two bounds.
func TestFewUnsaved(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := &run{a: New(Config{UnsavedEvents: 500, UnsavedAge: 200 * time.Millisecond})}
	few := func(n int, age time.Duration) bool { return r.fewUnsaved(n, began.Add(age)) }
	if !few(1000, time.Hour) {
		t.Error("nothing is unsaved, but a large request may not start")
	}
	r.unsaved.settled(499, began)
	for _, test := range []struct {
		n    int
		age  time.Duration
		want bool
	}{
		{1, 0, true}, {2, 0, false}, {1, 200*time.Millisecond - 1, true}, {1, 200 * time.Millisecond, false},
	} {
		if got := few(test.n, test.age); got != test.want {
			t.Errorf("a request of %d, after %v: %v, want %v", test.n, test.age, got, test.want)
		}
	}
}
