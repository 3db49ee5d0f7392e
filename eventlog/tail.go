package eventlog

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"postroad/internal/pglisten"
)

// lookPause is the least time between two looks: under load it lets what was
// stored meanwhile be found together.
const lookPause = time.Millisecond

// tail learns which feeds grew and brings the new events of those that are
// followed into their rings. One goroutine does all of it; feeds that nobody
// follows cost nothing.
type tail struct {
	pool   *pgxpool.Pool
	config Config
	name   string // in what this process notifies others of
	reads  prometheus.Counter
	wake   chan struct{} // of capacity 1
	closed chan struct{}

	mu        sync.Mutex
	isClosed  bool
	feeds     map[int64]*feedTail
	fresh     []*feedTail            // followed since the last look
	told      map[*feedTail]struct{} // said to have grown since the last look
	listeners map[int]func(feedID, head int64)
	nextID    int
	// missed says that the connection was made anew, or that a listener came:
	// what must be told may lie before the snapshot.
	missed bool

	// Used by the tail's goroutine alone.
	snapshot string // of the last look; empty: start afresh
	behind   map[*feedTail]struct{}
	rings    *rings // has a lock of its own
	failing  bool
}

func newTail(pool *pgxpool.Pool, config Config, reads prometheus.Counter) *tail {
	return &tail{
		pool: pool, config: config, reads: reads, name: uuid.NewString(), wake: make(chan struct{}, 1), closed: make(chan struct{}),
		feeds: map[int64]*feedTail{}, told: map[*feedTail]struct{}{}, listeners: map[int]func(int64, int64){},
		behind: map[*feedTail]struct{}{}, rings: newRings(config),
	}
}

// close ends every Wait.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed {
		t.isClosed = true
		close(t.closed)
	}
}

// listen wakes the tail at each notification. After each connect the next look
// starts afresh: the server may have crashed or been replaced without the tail's
// own queries failing, as the pool makes dead connections anew by itself, and
// then the last snapshot may speak of transactions of another history.
func (t *tail) listen(ctx context.Context) {
	config := pglisten.Config{URL: t.config.ListenURL, Logger: t.config.Logger}
	if config.URL == "" {
		config.ConnConfig = t.pool.Config().ConnConfig
	}
	connected := func() {
		t.mu.Lock()
		t.missed = true
		t.mu.Unlock()
		signal(t.wake)
	}
	err := pglisten.Listen(ctx, config, map[string]func(string){Channel: t.notified}, connected)
	if err != nil {
		t.config.Logger.Error("cannot listen for new events, polling instead", "error", err)
	}
}

// notified takes in a notification. The tail was told of what this process stored
// itself before it was sent.
func (t *tail) notified(payload string) {
	text, sender, _ := strings.Cut(payload, " ")
	if sender == t.name {
		return
	}
	feed, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		signal(t.wake) // of whatever it speaks
		return
	}
	t.tell(feed)
}

// tell wakes the tail, which reads on in these feeds first of all.
func (t *tail) tell(feeds ...int64) {
	t.mu.Lock()
	for _, id := range feeds {
		if f := t.feeds[id]; f != nil {
			t.told[f] = struct{}{}
		}
	}
	t.mu.Unlock()
	signal(t.wake)
}

// run looks until ctx ends.
func (t *tail) run(ctx context.Context) {
	poll := time.NewTicker(t.config.PollInterval)
	defer poll.Stop()
	for ctx.Err() == nil {
		looked := time.Now()
		more, err := t.look(ctx)
		if err != nil {
			t.fail(ctx, err)
		} else if t.failing {
			t.failing = false
			t.config.Logger.Info("log is being followed again")
		}
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-poll.C:
		}
		if rest := lookPause - time.Since(looked); rest > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
		}
	}
}

// fail makes the next look start afresh: after a failover or a crash, what the
// last snapshot says about transactions may no longer hold.
func (t *tail) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	t.snapshot = ""
	if !t.failing {
		t.failing = true
		t.config.Logger.Warn("log cannot be followed, trying again", "error", err, "every", t.config.PollInterval)
	}
}

// look finds out which feeds grew since the last look and reads on in those
// that are followed. more says that some of these have more to read.
func (t *tail) look(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	early := t.takeTold()
	marks, err := t.changes(ctx, early)
	if err != nil {
		return false, err
	}
	if err := t.welcome(ctx); err != nil {
		return false, err
	}
	t.mu.Lock()
	listeners := slices.Collect(maps.Values(t.listeners))
	for feed, m := range marks {
		f := t.feeds[feed]
		if f == nil {
			continue
		}
		t.rings.mark(f, m.floor, m.erasures)
		if f.grow(m.head) {
			t.behind[f] = struct{}{}
		}
	}
	t.mu.Unlock()
	for feed, m := range marks {
		for _, tell := range listeners {
			if m.head >= 0 {
				tell(feed, m.head)
			}
		}
	}
	t.bring(early)
	return t.readOn(ctx)
}

// changes returns the marks of the feeds that changed since the last snapshot, and
// has early read in the same breath. A fresh start takes a snapshot first and then
// asks for the marks of every feed that somebody wants to know of: what commits
// later, the next look will see.
func (t *tail) changes(ctx context.Context, early *reading) (map[int64]mark, error) {
	t.mu.Lock()
	missed := t.missed
	t.mu.Unlock()
	if t.snapshot != "" && !missed {
		marks, snapshot, err := changedSince(ctx, t.pool, t.snapshot, early)
		if err == nil {
			t.snapshot = snapshot
		}
		return marks, err
	}
	snapshot, err := currentSnapshot(ctx, t.pool)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.missed = false
	all := len(t.listeners) > 0
	followed := slices.Collect(maps.Keys(t.feeds))
	t.mu.Unlock()
	marks, err := readMarks(ctx, t.pool, followed, all)
	if err != nil {
		t.mu.Lock()
		t.missed = true
		t.mu.Unlock()
		return nil, err
	}
	t.snapshot = snapshot
	return marks, nil
}

// welcome gives feeds that are newly followed their place in the log.
func (t *tail) welcome(ctx context.Context) error {
	t.mu.Lock()
	fresh := t.fresh
	t.fresh = nil
	t.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	ids := make([]int64, len(fresh))
	for i, f := range fresh {
		ids[i] = f.id
	}
	marks, err := readMarks(ctx, t.pool, ids, false)
	if err != nil {
		t.mu.Lock()
		t.fresh = append(t.fresh, fresh...)
		t.mu.Unlock()
		return err
	}
	for _, f := range fresh {
		f.begin(marks[f.id])
	}
	return nil
}

// follow returns the tail of a feed, made where nobody followed it before.
func (t *tail) follow(feed int64) *feedTail {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.feeds[feed]
	if f == nil {
		f = &feedTail{id: feed}
		t.feeds[feed] = f
		t.fresh = append(t.fresh, f)
		signal(t.wake)
	}
	f.followers++
	return f
}

// unfollow forgets a feed that nobody follows any more.
func (t *tail) unfollow(f *feedTail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.followers--; f.followers == 0 {
		delete(t.feeds, f.id)
		delete(t.told, f)
		f.gone.Store(true)
		t.rings.drop(f)
	}
}

// OnChange calls fn for each feed that grew, from now until cancel, with the
// feed's head; fn must not block. It is called for every feed there is once
// now, and again whenever changes may have been missed, because the connection
// was lost: so head may be one that fn has seen.
func (l *Log) OnChange(fn func(feedID, head int64)) (cancel func()) {
	t := l.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	id := t.nextID
	t.nextID++
	t.listeners[id] = fn
	t.missed = true
	signal(t.wake)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.listeners, id)
	}
}

// Wait waits until the feed has an event above after, or ctx ends, or the log
// is closed (ErrClosed).
func (l *Log) Wait(ctx context.Context, feedID, after int64) error {
	f := l.Follow(feedID, after, everything)
	defer f.Close()
	head, err := l.Head(ctx, feedID)
	if err != nil || head > after {
		return err
	}
	return f.Wait(ctx)
}
