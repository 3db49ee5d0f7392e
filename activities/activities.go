package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"postroad/delivery"
	"postroad/eventlog"
	"postroad/store"
)

// Config says what the activities work with. The zero value of a period or
// bound means its default.
type Config struct {
	Log    *eventlog.Log
	Store  *store.Store
	Client *delivery.Client
	Logger *slog.Logger
	// ListenURL is a direct connection to PostgreSQL (past any pooler), for
	// LISTEN.
	ListenURL string
	// Tracer makes the spans of requests whose events are in a recorded trace;
	// nil: none.
	Tracer trace.Tracer
	// LogAttempts is one of LogAllAttempts, LogFailedAttempts (the default) and
	// LogNoAttempts.
	LogAttempts string
	// SearchAttributes reports that the Temporal cluster has ours.
	SearchAttributes bool

	// Budget is how long one Deliver runs before it returns `more`.
	Budget time.Duration // 5 min
	// BudgetShort is the budget while more than 80 % of the slots are in use.
	BudgetShort time.Duration // 5 s
	// Slots is how many Delivers the worker runs at once.
	Slots int // 20,000
	// Linger is how long a run that has nothing to send stays before it parks.
	Linger time.Duration // 30 s
	// SitOut is the longest wait that Deliver stays for, while there are slots: the
	// row says what it waits for and no lease is held. A longer one is for Temporal
	// to time. Negative: it stays for none.
	SitOut time.Duration // 4 s: shorter than the first step of a schedule
	// Touch is how often an idle run marks its row as looked at.
	Touch time.Duration // 10 s
	// LeaseTrust is how long a confirmed lease may be relied on, and so how
	// long a taker waits for the one it fenced.
	LeaseTrust time.Duration // 1 s
	// LeaseLost is how long a run waits for a word from PostgreSQL before it
	// leaves its subscriber to whoever has one: it counts as dead then, as a
	// process does that Temporal does not hear of for as long.
	LeaseLost time.Duration // 30 s
	// CheckpointAfter and CheckpointEvents trigger a checkpoint.
	CheckpointAfter  time.Duration // 100 ms
	CheckpointEvents int           // 250
	// UnsavedAge and UnsavedEvents close the gate until a checkpoint committed.
	UnsavedAge    time.Duration // 200 ms
	UnsavedEvents int           // 500
	// ControlPoll is how often controls are looked for beside NOTIFY.
	ControlPoll time.Duration // 250 ms
	// CountReplay bounds the count of a replay's events before a signal that asks
	// for one is refused.
	CountReplay time.Duration // 90 s
	// LookAhead is how many events are looked at for newer ones of their records,
	// where a subscriber that catches up wants these alone.
	LookAhead int // 200,000
	// HeartbeatEvery is how often Deliver tells Temporal that it lives.
	HeartbeatEvery time.Duration // 5 s
	// DrainRequests bounds how long a stopping worker waits for answers.
	DrainRequests time.Duration // 18 s
	// ReleaseTimeout bounds the last checkpoint of a stopping run.
	ReleaseTimeout time.Duration // 5 s
	// AttemptsQueue bounds attempts that are not written yet.
	AttemptsQueue int // 20,000
	// AttemptsEvery is how often they are written.
	AttemptsEvery time.Duration // 200 ms
}

func (c Config) withDefaults() Config {
	setDefault(&c.Logger, slog.Default())
	setDefault(&c.LogAttempts, LogFailedAttempts)
	setDefault(&c.Budget, 5*time.Minute)
	setDefault(&c.BudgetShort, 5*time.Second)
	setDefault(&c.Slots, 20_000)
	setDefault(&c.Linger, 30*time.Second)
	setDefault(&c.SitOut, 4*time.Second)
	setDefault(&c.Touch, 10*time.Second)
	setDefault(&c.LeaseTrust, time.Second)
	setDefault(&c.LeaseLost, 30*time.Second)
	setDefault(&c.CheckpointAfter, 100*time.Millisecond)
	setDefault(&c.CheckpointEvents, 250)
	setDefault(&c.UnsavedAge, 200*time.Millisecond)
	setDefault(&c.UnsavedEvents, 500)
	setDefault(&c.ControlPoll, 250*time.Millisecond)
	setDefault(&c.CountReplay, 90*time.Second)
	setDefault(&c.LookAhead, 200_000)
	setDefault(&c.HeartbeatEvery, 5*time.Second)
	setDefault(&c.DrainRequests, 18*time.Second)
	setDefault(&c.ReleaseTimeout, 5*time.Second)
	setDefault(&c.AttemptsQueue, 20_000)
	setDefault(&c.AttemptsEvery, 200*time.Millisecond)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Activities delivers and applies. One value serves all subscribers that a
// worker process runs.
type Activities struct {
	cfg           Config
	checkpoints   *checkpointer
	confirmations *confirmer
	attempts      *attemptsWriter
	runs          *registry
	counters      *Counters

	draining  chan struct{} // closed: start nothing any more
	drainOnce sync.Once
	stop      context.CancelCauseFunc
	loops     sync.WaitGroup
}

// errStopped is why the background writers end.
var errStopped = errors.New("the worker has stopped")

// New returns activities that Start has still to be called on.
func New(cfg Config) *Activities {
	cfg = cfg.withDefaults()
	counters := newCounters()
	return &Activities{
		cfg:           cfg,
		counters:      counters,
		checkpoints:   newCheckpointer(cfg.Store, counters, cfg.Logger),
		confirmations: newConfirmer(cfg.Store),
		attempts:      newAttemptsWriter(cfg.Store.InsertAttemptRows, cfg.AttemptsQueue, cfg.AttemptsEvery, counters, cfg.Logger),
		runs:          newRegistry(),
		draining:      make(chan struct{}),
	}
}

// Start runs the checkpoint writer, the attempts writer and the look-out for
// controls until Close.
func (a *Activities) Start(ctx context.Context) {
	ctx, a.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	for _, loop := range []func(context.Context){a.checkpoints.run, a.attempts.run, a.watchControls} {
		a.loops.Go(func() { loop(ctx) })
	}
}

// Drain closes every gate: requests in flight end and are recorded, leases are
// given back, and each Deliver returns `interrupted`. It returns at once.
func (a *Activities) Drain() {
	a.drainOnce.Do(func() {
		close(a.draining)
		a.runs.each((*run).drain)
	})
}

// Close ends the background writers after what they hold is written. Every
// Deliver must have returned.
func (a *Activities) Close() {
	a.Drain()
	if a.stop != nil {
		a.stop(errStopped)
	}
	a.loops.Wait()
}
