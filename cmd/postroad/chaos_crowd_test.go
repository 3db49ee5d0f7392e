//go:build chaos

package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/internal/apiclient"
	"postroad/internal/config"
	"postroad/internal/testkit"
	"postroad/store"
)

const (
	// crowdWakeMax is how long 1,000 subscribers may take to have an event; the
	// figure that counts is logged.
	crowdWakeMax = time.Minute
	// crowdParkMax is how long they may take to park: 30 s from the last event,
	// and 2 min where a wake was lost on a busy machine and a sweep sends it.
	crowdParkMax = 4 * time.Minute
)

// crowd is a stack with many subscribers of one feed, all with one consumer.
type crowd struct {
	t        *testing.T
	child    *child
	api      *apiclient.Client
	dir      string
	pool     *pgxpool.Pool // its own private database
	metrics  string
	consumer *testkit.Receiver
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t, dir: devDir(t), consumer: testkit.NewReceiver(t, testkit.ReceiverOptions{})}
	c.child, c.api = startDev(t, c.dir, "--metrics-listen", "127.0.0.1:0")
	c.metrics = await(t, &c.child.stdout, `  metrics +(\S+)`)
	home := await(t, &c.child.stderr, `PostgreSQL is running" dir=(\S+)`)
	database := fmt.Sprintf("postgres://postroad:%s@%s/postroad?sslmode=disable",
		c.file(home, "password"), net.JoinHostPort("127.0.0.1", c.file(home, "port")))
	poolConfig, err := store.PoolConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	poolConfig.MaxConns = 1
	if c.pool, err = pgxpool.NewWithConfig(t.Context(), poolConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.pool.Close)
	return c
}

func (c *crowd) file(dir, name string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// count is the number of rows that a condition over runs holds for.
func (c *crowd) count(condition string) (n int) {
	c.t.Helper()
	if err := c.pool.QueryRow(c.t.Context(), `SELECT count(*) FROM runs WHERE `+condition).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *crowd) call(path string, in any) {
	c.t.Helper()
	if _, err := c.api.Do(c.t.Context(), apiclient.Request{Method: http.MethodPost, Path: path, In: in}, nil); err != nil {
		c.t.Fatalf("POST %s: %v", path, err)
	}
}

// publish publishes one event and returns when it began to.
func (c *crowd) publish(eventType string) (began time.Time) {
	c.t.Helper()
	began = time.Now()
	c.call("/v1/feeds/default/events", map[string]string{"resourceName": "Property", "resourceRecordKey": "1", "eventType": eventType})
	return began
}

// metric is the value of one of the process's metrics.
func (c *crowd) metric(name string) (value int) {
	c.t.Helper()
	testkit.Eventually(c.t, waitMax, func() bool {
		_, rest, found := strings.Cut(c.scrape(), "\n"+name+" ")
		text, _, _ := strings.Cut(rest, "\n")
		number, err := strconv.ParseFloat(text, 64)
		value = int(number)
		return found && err == nil
	}, "the process shows the metric "+name)
	return value
}

// scrape is what the process shows at its metrics address; a busy one may refuse.
func (c *crowd) scrape() string {
	c.t.Helper()
	return textAt(c.t, c.metrics)
}

// awaitParked waits until n rows are parked.
func (c *crowd) awaitParked(n int) {
	c.t.Helper()
	began := time.Now()
	testkit.Eventually(c.t, crowdParkMax, func() bool { return c.count("NOT parked") == 0 }, "all subscribers are parked")
	if got := c.count("parked"); got != n {
		c.t.Fatalf("%d subscribers are parked, want %d", got, n)
	}
	c.t.Logf("%d subscribers are parked, %.1f s later", n, time.Since(began).Seconds())
}

// wave publishes one event that n subscribers are to have, and checks that each
// has it once.
func (c *crowd) wave(what, eventType string, n int) {
	c.t.Helper()
	had, used := c.consumer.Count(), c.cpu()
	began := c.publish(eventType)
	c.consumer.WaitFor(c.t, had+n, 2*crowdWakeMax)
	used = c.cpu() - used
	requests := c.consumer.Requests()[had:]
	sequence, got := firstOf(c.t, requests[0]), map[string]int{}
	for _, r := range requests {
		if subscriber := r.Header.Get("Postroad-Subscriber"); r.Path != "/"+subscriber || firstOf(c.t, r) != sequence || lastOf(c.t, r) != sequence {
			c.t.Fatalf("%s: %s got events %d to %d at %s, want %d alone", what, subscriber, firstOf(c.t, r), lastOf(c.t, r), r.Path, sequence)
		}
		got[r.Header.Get("Postroad-Subscriber")]++
	}
	if len(got) != n || len(requests) != n {
		c.t.Errorf("%s: %d requests to %d subscribers, want one to each of %d", what, len(requests), len(got), n)
	}
	last := requests[n-1].At.Sub(began)
	c.t.Logf("%s: %d subscribers had the event, the first after %d ms, half after %d ms, the last %.2f s after it was published; %.2f CPU-seconds",
		what, n, requests[0].At.Sub(began).Milliseconds(), requests[n/2].At.Sub(began).Milliseconds(), last.Seconds(), used.Seconds())
	if last > crowdWakeMax {
		c.t.Errorf("%s: the last of %d subscribers had the event %s after it was published", what, n, last)
	}
}

// TestChaosThousandParked wakes 1,000 parked subscribers with one event, and
// again. It runs alone, because it is measured.
func TestChaosThousandParked(t *testing.T) {
	const n = 1000
	c := newCrowd(t)
	began := time.Now()
	for i := range n {
		id := fmt.Sprintf("crowd-%d", i)
		c.call("/v1/subscribers", map[string]any{"id": id, "endpoint": map[string]any{"url": c.consumer.URL() + "/" + id}})
	}
	t.Logf("%d subscribers created in %.1f s", n, time.Since(began).Seconds())
	c.awaitParked(n)
	c.wave("parked", "crowd", n)
	c.wave("lingering", "crowd", n)
	c.awaitParked(n)
	c.wave("parked again", "crowd", n)
	c.awaitParked(n)
	if got, settled := c.consumer.Count(), c.count("cursor = 3"); got != 3*n || settled != n {
		t.Errorf("%d requests, %d subscribers at the head; want %d and %d", got, settled, 3*n, n)
	}
	t.Logf("%d wakes were sent, %d of them again", c.metric("postroad_waker_sent_total"), c.metric("postroad_waker_resent_total"))
}

// insertParked inserts parked rows that nothing has ever driven: matching of
// them wait for events of type crowd, the others each for a type of its own.
func (c *crowd) insertParked(n, matching int) {
	c.t.Helper()
	key, err := store.LoadKey(config.KeyFile(c.dir))
	if err != nil {
		c.t.Fatal(err)
	}
	sealer, err := store.NewSealer(key)
	if err != nil {
		c.t.Fatal(err)
	}
	s := store.New(c.pool, sealer)
	for i := range n {
		id, eventType := fmt.Sprintf("row-%d", i), "crowd"
		if i >= matching {
			eventType = id
		}
		sub := event.Subscriber{
			ID: id, Endpoint: event.Endpoint{URL: c.consumer.URL() + "/" + id}, Signing: event.Signing{Scheme: event.SigningNone},
			Filter: event.Filter{ResourceNames: []string{"Property"}, EventTypes: []string{eventType}},
		}
		if _, err := s.Create(c.t.Context(), sub.Defaulted(), event.Secrets{}); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.pool.Exec(c.t.Context(), `UPDATE runs SET parked = true, generation = nextval('park_generations') WHERE id LIKE 'row-%'`); err != nil {
		c.t.Fatal(err)
	}
}

// TestChaosTenThousandParked looks at what 10,000 parked subscribers cost that
// nothing matches, and wakes 1,000 of them. It runs alone, because it is
// measured.
func TestChaosTenThousandParked(t *testing.T) {
	const (
		rows, matching, publishes = 10_000, 1_000, 100
		idle                      = time.Minute // in which all rows are reloaded once
		bytesMax                  = 500 << 20
		coreMax                   = 0.05
	)
	c := newCrowd(t)
	c.call("/v1/subscribers", map[string]any{
		"id": "warm", "endpoint": map[string]any{"url": c.consumer.URL() + "/warm"}, "filter": map[string]any{"eventTypes": []string{"warm"}},
	})
	c.wave("warm", "warm", 1)
	c.awaitParked(1)
	baseCPU, baseBytes := c.idles(idle), c.bytes()

	c.insertParked(rows, matching)
	testkit.Eventually(t, crowdParkMax, func() bool { return c.metric("postroad_waker_parked") == rows+1 }, "the waker knows the rows")
	cpu, bytes := c.idles(idle), c.bytes()
	t.Logf("idle: %.2f %% of a core without them, %.2f %% with %d parked subscribers", 100*baseCPU, 100*cpu, rows)
	if cpu-baseCPU > coreMax {
		t.Errorf("%d parked subscribers take %.2f %% of a core", rows, 100*(cpu-baseCPU))
	}
	t.Logf("memory: %d MiB without them, %d MiB with them", baseBytes>>20, bytes>>20)
	if bytes-baseBytes > bytesMax {
		t.Errorf("%d parked subscribers take %d MiB", rows, (bytes-baseBytes)>>20)
	}

	// They are in the index once an event has been through it.
	c.awaitPages(func() { c.publish("nothing") })
	attempts, statements, pages := c.metric("postroad_waker_match_attempts_total"), c.metric("postroad_waker_statements_total"), c.metric("postroad_waker_pages_total")
	for range publishes {
		c.awaitPages(func() { c.publish("nothing") })
	}
	attempts, statements = c.metric("postroad_waker_match_attempts_total")-attempts, c.metric("postroad_waker_statements_total")-statements
	t.Logf("%d events that nothing matches: %d reads of the log, %d queries about rows, %d rows tried",
		publishes, c.metric("postroad_waker_pages_total")-pages, statements, attempts)
	if attempts != 0 || statements != 0 {
		t.Errorf("%d events that nothing matches: %d rows tried, %d queries about rows; want none", publishes, attempts, statements)
	}
	if got := c.consumer.Count(); got != 1 {
		t.Errorf("%d requests, want the one from before", got)
	}
	c.wave("of 10,000 parked", "crowd", matching)
	c.awaitParked(rows + 1)
	if got := c.consumer.Count(); got != 1+matching {
		t.Errorf("%d requests, want one to each of the %d that something matched", got, 1+matching)
	}
}

// awaitPages waits until the waker has read what do publishes.
func (c *crowd) awaitPages(do func()) {
	c.t.Helper()
	pages := c.metric("postroad_waker_pages_total")
	do()
	testkit.Eventually(c.t, waitMax, func() bool { return c.metric("postroad_waker_pages_total") > pages }, "the waker has read the event")
}

// tree are the processes of the stack.
func (c *crowd) tree() []int {
	root := c.child.cmd.Process.Pid
	return append(descendants(root), root)
}

// idles returns which part of a core the stack takes within a while.
func (c *crowd) idles(while time.Duration) float64 {
	c.t.Helper()
	began, before := time.Now(), c.cpu()
	<-time.After(while)
	return (c.cpu() - before).Seconds() / time.Since(began).Seconds()
}

// cpu is the time that the stack's processes have used, those that ended
// included.
func (c *crowd) cpu() (used time.Duration) {
	c.t.Helper()
	const tick = 10 * time.Millisecond
	for _, pid := range c.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended; its parent has its time
		}
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
		for _, field := range fields[11:15] { // utime, stime, cutime, cstime
			ticks, err := strconv.Atoi(field)
			if err != nil {
				c.t.Fatal(err)
			}
			used += time.Duration(ticks) * tick
		}
	}
	return used
}

// bytes is the memory of the stack's processes; what they share counts once.
func (c *crowd) bytes() (total int64) {
	c.t.Helper()
	for _, pid := range c.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text))
		if i := slices.Index(fields, "Pss:"); i >= 0 {
			kilobytes, err := strconv.ParseInt(fields[i+1], 10, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			total += kilobytes << 10
		}
	}
	return total
}
