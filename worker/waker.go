package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postroad/eventlog"
	"postroad/internal/pglisten"
	"postroad/store"
)

// WakerConfig says how the waker works. The zero value of a period or bound
// means its default.
type WakerConfig struct {
	// Reload is how often all parked rows are read again, which finds what a
	// lost notification did not tell. Default 1 min.
	Reload time.Duration
	// Sweep is how often rows are looked for that nobody drives, and Unchecked
	// how long nobody has. Default 1 min each.
	Sweep, Unchecked time.Duration
	// MoveCursors is how often cursors of rows that nothing matched are moved.
	// Default 1 min.
	MoveCursors time.Duration
	// Housekeeping is how often partitions are made and dropped, and expired
	// keys and tokens deleted. Default 1 h; after an error Sweep.
	Housekeeping time.Duration
	// Retention is how often old events are looked for. They are removed by
	// RemoveMax in a statement, with a RemovePause after each. Default 1 min,
	// 10,000 and 100 ms.
	Retention   time.Duration
	RemoveMax   int
	RemovePause time.Duration
	// Overview is how often it is looked at how all subscribers fare. Default
	// 15 s.
	Overview time.Duration
	// Sources says how the sources of feeds are followed.
	Sources SourcesConfig
	// Announce says how people are told.
	Announce AnnounceConfig
	// AttemptsDays is how many whole days attempts are kept. Default 7.
	AttemptsDays int
	// WakeAgain is the time before a wake is repeated; it doubles up to
	// WakeAgainMax. Default 30 s and 10 min.
	WakeAgain, WakeAgainMax time.Duration
	// WakesPerSecond and WakesBurst are the token bucket that all wakes pass.
	// Default 500 and 1,000.
	WakesPerSecond, WakesBurst int
	// Signals is how many signals are under way at once. Default 32.
	Signals int
	// SignalTimeout bounds one. Default 15 s: Temporal's client itself gives up
	// after 10 s.
	SignalTimeout time.Duration
	// YieldAfter is how long signals may fail, none of them arriving, before
	// another process is let be the active one. Default 15 s.
	YieldAfter time.Duration
	// RetryDelay is the pause after something failed. Default 5 s.
	RetryDelay time.Duration
	// Matchers is how many feeds are matched at once. Default 4.
	Matchers int
	// Statements is how many statements are under way at once, beside one of
	// housekeeping, one of retention, and appends. Default 4: deliveries checkpoint through the same pool of
	// connections, and a reload, which matches each row in a query of its own,
	// would take them all. Each of these is short, and who waits is served in
	// turn; the others may take long, and would hold up wakes.
	Statements int
	// LockPoll is how often an inactive waker tries to become the active one,
	// and an active one shows that it lives; LockTimeout is when PostgreSQL
	// takes one that shows nothing for dead. Default 2 s and 10 s.
	LockPoll, LockTimeout time.Duration
	// BatchMax bounds what one query brings or changes. Default 1,000.
	BatchMax int
}

// WithDefaults returns a copy with the defaults filled in.
func (c WakerConfig) WithDefaults() WakerConfig {
	setDefault(&c.Reload, time.Minute)
	setDefault(&c.Sweep, time.Minute)
	setDefault(&c.Unchecked, time.Minute)
	setDefault(&c.MoveCursors, time.Minute)
	setDefault(&c.Housekeeping, time.Hour)
	setDefault(&c.Retention, time.Minute)
	setDefault(&c.RemoveMax, 10_000)
	setDefault(&c.RemovePause, 100*time.Millisecond)
	setDefault(&c.Overview, 15*time.Second)
	setDefault(&c.AttemptsDays, store.AttemptDaysKept)
	setDefault(&c.WakeAgain, 30*time.Second)
	setDefault(&c.WakeAgainMax, 10*time.Minute)
	setDefault(&c.WakesPerSecond, 500)
	setDefault(&c.WakesBurst, 1_000)
	setDefault(&c.Signals, 32)
	setDefault(&c.SignalTimeout, 15*time.Second)
	setDefault(&c.YieldAfter, 15*time.Second)
	setDefault(&c.RetryDelay, 5*time.Second)
	setDefault(&c.Matchers, 4)
	setDefault(&c.Statements, 4)
	setDefault(&c.LockPoll, 2*time.Second)
	setDefault(&c.LockTimeout, 10*time.Second)
	setDefault(&c.BatchMax, 1_000)
	c.Announce = c.Announce.withDefaults()
	c.Sources = c.Sources.withDefaults()
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Counters count what a waker has done since it was made.
type Counters struct {
	// Active is 1 while this waker is the active one.
	Active atomic.Int64
	// Parked is how many parked rows it knew at the last reload, of which there
	// were Reloads.
	Parked, Reloads atomic.Int64
	// MatchAttempts counts rows that were matched with a new event one by one;
	// rows that the index rules out are not among them.
	MatchAttempts atomic.Int64
	// Statements counts queries about single rows or feeds, Pages reads of new
	// events of a feed.
	Statements, Pages atomic.Int64
	// Sent and Resent count wakes that were sent first and again, Failed those
	// that could not be sent.
	Sent, Resent, Failed atomic.Int64
	// Moved counts cursors that were moved, Swept plain wakes for neglected
	// rows, Purged tombstones that were removed.
	Moved, Swept, Purged atomic.Int64
	// Removed counts events that were removed from the log.
	Removed atomic.Int64
	// Compacted counts events that newer ones of their records stand for.
	Compacted atomic.Int64
	// Sources is how many sources are followed, SourcesFailing how many of them could
	// not be read the last time. SourceEvents counts events that were taken from
	// them, SourceLate those that came too late for it, SourceFaults readings that
	// failed.
	Sources, SourcesFailing, SourceEvents, SourceLate, SourceFaults atomic.Int64
	// Announced counts notices that were put into the feed _system.
	Announced atomic.Int64
}

// Waker tells the workflows of parked subscribers that there is something for
// them. One per database is active. It decides nothing: a wake that is lost is
// sent again, one too many makes a run look at its row once.
type Waker struct {
	config    WakerConfig
	log       *eventlog.Log
	store     *store.Store
	signaller Signaller
	url       string
	logger    *slog.Logger
	counters  Counters

	overview   atomic.Pointer[store.Overview]
	lastActive atomic.Pointer[time.Time]
}

// NewWaker returns a waker. directURL is a connection past any pooler, for the
// lock and for notifications.
func NewWaker(config WakerConfig, log *eventlog.Log, s *store.Store, signaller Signaller, directURL string, logger *slog.Logger) *Waker {
	return &Waker{
		config: config.WithDefaults(), log: log, store: s, signaller: signaller, url: directURL, logger: logger,
	}
}

// Counters returns the waker's counters, which go on counting.
func (w *Waker) Counters() *Counters { return &w.counters }

// Run wakes whenever this is the active waker of the database, until ctx ends.
// The log must have been started.
func (w *Waker) Run(ctx context.Context) {
	leader{url: w.url, poll: w.config.LockPoll, timeout: w.config.LockTimeout, logger: w.logger}.run(ctx, w.act)
}

// turn is one stretch of time as the active waker. It begins with nothing known.
type turn struct {
	*Waker
	board  *board
	sender *sender
	// sweeper sends what the sweep found, few at once: a Temporal that is behind with
	// ten thousand starts is not helped by as many signals for them.
	sweeper *sender
	// querying has room for as many as may ask the database something at once.
	querying chan struct{}

	reload chan struct{} // of capacity 1: read all parked rows soon

	// Rows are read one by one and feeds are not: a thousand that park together
	// must not delay the events of those that are known.
	rows  *inbox[string, struct{}] // subscribers that a notification named
	heads *inbox[int64, int64]     // feeds that grew
}

// toldMax bounds how many notifications wait; beyond it everything is reloaded.
const toldMax = 100_000

func (w *Waker) act(ctx context.Context) {
	ctx, yield := context.WithCancel(ctx)
	defer yield()
	t := &turn{
		Waker: w, board: newBoard(), querying: make(chan struct{}, w.config.Statements), reload: make(chan struct{}, 1),
		rows: newInbox[string, struct{}](), heads: newInbox[int64, int64](),
	}
	t.sender, t.sweeper = t.newSenders(yield)
	w.logger.Info("waker active")
	w.counters.Active.Store(1)
	cancel := w.log.OnChange(t.noteHead)
	defer func() {
		cancel()
		t.board.close()
		now := time.Now()
		w.lastActive.Store(&now)
		w.counters.Active.Store(0)
		w.logger.Info("waker no longer active")
	}()
	loops := []func(context.Context){t.sender.run, t.sweeper.run, t.listen, t.takeRows, t.takeHeads, t.reloadLoop, t.moveLoop, t.sweepLoop, t.housekeepingLoop, t.retentionLoop, t.overviewLoop}
	loops = append(loops, t.announceLoop, t.lagLoop, t.lastingLoop, t.sourcesLoop)
	for range w.config.Matchers {
		loops = append(loops, t.matchLoop)
	}
	var running sync.WaitGroup
	for _, loop := range loops {
		running.Go(func() { loop(ctx) })
	}
	running.Wait()
}

// sweepSignals is how many signals of the sweep are under way at once.
const sweepSignals = 4

// newSenders returns the sender and the sweeper.
func (w *turn) newSenders(yield func()) (_, sweeper *sender) {
	s, sweeper := w.newSender(yield), w.newSender(yield)
	sweeper.limiter, sweeper.reach, sweeper.concurrency = s.limiter, s.reach, min(sweepSignals, s.concurrency)
	return s, sweeper
}

func (w *turn) newSender(yield func()) *sender {
	c := w.config
	return &sender{
		signaller: w.signaller, parked: w.stillParked,
		limiter: rate.NewLimiter(rate.Limit(c.WakesPerSecond), c.WakesBurst), concurrency: c.Signals, timeout: c.SignalTimeout,
		again: c.WakeAgain, againMax: c.WakeAgainMax, afterError: c.RetryDelay,
		yieldAfter: c.YieldAfter, yield: yield, reach: &reach{},
		logger: w.logger, counters: &w.counters, byID: map[string]*wake{}, poked: make(chan struct{}, 1),
	}
}

// stillParked asks the database whether a wake is still wanted.
func (w *turn) stillParked(ctx context.Context, id string, generation int64) (bool, error) {
	row, parked, err := w.parkedRow(ctx, id)
	return parked && row.Generation == generation, err
}

func (w *turn) parkedRow(ctx context.Context, id string) (row store.ParkedRow, parked bool, err error) {
	w.counters.Statements.Add(1)
	defer w.admit(ctx)()
	return w.store.ParkedRow(ctx, id)
}

// admit waits until one more statement may be made; release says that it was.
// It waits no longer than ctx, with which the statement fails by itself.
func (w *turn) admit(ctx context.Context) (release func()) {
	select {
	case w.querying <- struct{}{}:
		return func() { <-w.querying }
	case <-ctx.Done():
		return func() {}
	}
}

// listen notes which rows were parked or changed their filter. After each
// connect everything is reloaded, because notifications may have been lost.
func (w *turn) listen(ctx context.Context) {
	handlers := map[string]func(string){store.ParkedChannel: w.noteParked}
	if err := pglisten.Listen(ctx, pglisten.Config{URL: w.url, Logger: w.logger}, handlers, w.reloadSoon); err != nil {
		w.logger.Error("cannot listen for parked rows, reloading instead", "error", err)
	}
}

func (w *turn) reloadSoon() { poke(w.reload) }

func (w *turn) noteParked(id string) {
	w.rows.put(func(told map[string]struct{}) {
		if len(told) < toldMax {
			told[id] = struct{}{}
		} else {
			w.reloadSoon()
		}
	})
}

func (w *turn) noteHead(feedID, head int64) {
	w.heads.put(func(heads map[int64]int64) { heads[feedID] = max(heads[feedID], head) })
}

// takeHeads takes in what the log has told.
func (w *turn) takeHeads(ctx context.Context) {
	for heads := range w.heads.take(ctx) {
		w.board.changed(heads)
	}
}

// takeRows takes in what notifications have told.
func (w *turn) takeRows(ctx context.Context) {
	for told := range w.rows.take(ctx) {
		for id := range told {
			w.learn(ctx, id)
		}
	}
}

// learn reads one row that a notification named.
func (w *turn) learn(ctx context.Context, id string) {
	switch row, parked, err := w.parkedRow(ctx, id); {
	case err != nil:
		if ctx.Err() == nil {
			w.logger.Warn("parked row not read", "subscriber", id, "error", err)
		}
		w.reloadSoon()
	case parked:
		w.board.learn(row)
	default:
		w.board.forget(id)
	}
}

func (w *turn) matchLoop(ctx context.Context) {
	for {
		f := w.board.take(ctx)
		if f == nil {
			return
		}
		w.work(ctx, f)
	}
}
