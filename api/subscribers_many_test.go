package api_test

import (
	"fmt"
	"testing"

	"postroad/internal/testkit"
)

// TestCreate_many: of many subscribers made at once, those for whom there is
// nothing yet have no workflow started; their rows wait for an event.
func TestCreate_many(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const many = 30 // more than may start before there is an event, however long this takes
	for i := range many {
		b.create(sub(fmt.Sprintf("early-%d", i), `"start":"beginning"`)).want(201, nil)
	}
	b.publish(one("1")).want(201, nil)
	b.create(sub("late", `"start":"beginning"`)).want(201, nil)
	b.awaitWakes("late", 1)
	var parked, started int
	must(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE parked), count(*) FILTER (WHERE NOT parked AND id <> 'late') FROM runs`).Scan(&parked, &started))
	if parked == 0 || started == 0 || parked+started != many {
		t.Errorf("%d of %d subscribers wait for an event and %d do not", parked, many, started)
	}
	testkit.Eventually(t, soon, func() (all bool) {
		b.waker.set(func() { all = len(b.waker.wakes) == started+1 })
		return all
	}, "not as many workflows are started as subscribers wait for none")
}
