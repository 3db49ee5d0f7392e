package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"postroad/event"
)

// appendMax is how many events are appended at once, and appendBytesMax about
// how many bytes.
const (
	appendMax      = 1000
	appendBytesMax = 16 << 20
)

// Mirror follows one source into one feed.
type Mirror struct {
	config   Config
	feed     Feed
	root     *url.URL
	resource string // the address of EntityEvent
	auth     authorizer
	options  options
	marks    marks
	marked   time.Time
	// highest is the highest sequence that was seen at the source.
	highest int64
	// target is where Once ends; 0: not known yet.
	target int64

	recheckedAt time.Time
	reported    map[int64]struct{}
}

// New returns a mirror that Run runs. The error is about Config.Root.
func New(config Config, feed Feed) (*Mirror, error) {
	root, err := ParseRoot(config.Root)
	if err != nil {
		return nil, fmt.Errorf("service root %w", err)
	}
	m := &Mirror{
		config: config.WithDefaults(), feed: feed, root: root, resource: root.String() + "/EntityEvent",
		reported: map[int64]struct{}{}, recheckedAt: time.Now(),
	}
	m.auth = authorizer{auth: config.Auth, config: &m.config}
	m.marks.horizon = m.config.Horizon
	for _, sequence := range config.Reported {
		m.reported[sequence] = struct{}{}
	}
	return m, nil
}

// Run mirrors until ctx ends, and returns its error then. It returns nil at the
// end of Config.Once, and a fault where Config.StopOnFault says so. It may be
// called once.
func (m *Mirror) Run(ctx context.Context) error {
	for faults := 0; ; {
		done, wait, err := m.step(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && done:
			return nil
		case err == nil:
			faults = 0
		case m.config.StopOnFault && !Temporary(err):
			return err
		default:
			if !asked(err) { // to wait as one is asked to is no fault
				faults++
			}
			if m.config.FaultsMax > 0 && faults >= m.config.FaultsMax {
				return fmt.Errorf("given up after %d faults in a row: %w", faults, err)
			}
			wait = m.config.retryIn(err, faults)
			m.config.Observer.Fault(err, wait)
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// reach is how far a pass came.
type reach struct {
	// head is the feed's.
	head int64
	// held says that something above it must wait, as of the moment began.
	held  bool
	began time.Time
}

// step reads the source once, to its end or as far as the horizon lets it, and
// now and then its latest numbers once more.
func (m *Mirror) step(ctx context.Context) (done bool, wait time.Duration, err error) {
	r, err := m.pass(ctx)
	if err != nil {
		return false, 0, err
	}
	m.config.Observer.Read(r.head, m.highest)
	done = m.finished(r)
	if done || time.Since(m.recheckedAt) >= m.config.Recheck {
		if err := m.recheck(ctx); err != nil {
			return false, 0, err
		}
		m.recheckedAt = time.Now()
		m.options.noProbe = false
	}
	wait = m.config.Poll
	if r.held {
		wait = m.marks.ripe(r.began, time.Now(), wait)
	}
	return done, wait, nil
}

// finished reports whether Once has all that the source had at the start.
func (m *Mirror) finished(r reach) bool {
	if m.target == 0 {
		m.target = m.highest
	}
	return m.config.Once && (!r.held || r.head >= m.target)
}

// pass takes from the source what is safe to take.
func (m *Mirror) pass(ctx context.Context) (reach, error) {
	position, err := m.feed.Position(ctx)
	if err != nil {
		return reach{}, fmt.Errorf("read the feed's head: %w", err)
	}
	r, w := reach{head: position.Head}, m.walk(position.Head)
	m.saw(r.head)
	for {
		events, ended, err := w.page(ctx)
		if err != nil || ended {
			return r, err
		}
		m.saw(w.last)
		safe := m.safe(r.head, events, w.began)
		if err := m.take(ctx, events[:safe]); err != nil {
			return r, m.overtaken(ctx, position.Head, err)
		}
		if safe > 0 {
			r.head = events[safe-1].Sequence
		}
		if safe < len(events) {
			r.held, r.began = true, w.began
			return r, m.mark(ctx)
		}
	}
}

func (m *Mirror) saw(sequence int64) { m.highest = max(m.highest, sequence) }

// safe returns how many events of a page may be taken, the head being where it
// is: those without a gap before them, and those that a settled one covers.
func (m *Mirror) safe(head int64, events []event.Event, began time.Time) int {
	settled := m.marks.settled(began)
	if m.config.Horizon == 0 {
		return len(events)
	}
	for i := range events {
		if s := events[i].Sequence; s != head+1 && s > settled {
			return i
		}
		head = events[i].Sequence
	}
	return len(events)
}

// mark notes how far the source has got, beyond the page that was read too, so
// that what must wait waits once and not page by page.
func (m *Mirror) mark(ctx context.Context) error {
	if time.Since(m.marked) < m.config.Horizon/marksPerHorizon {
		return nil
	}
	head, err := m.sourceHead(ctx)
	// Whatever it said, the page was seen: without a mark it would wait for ever.
	m.saw(head)
	m.marked = time.Now()
	m.marks.note(m.highest, m.marked)
	return err
}

// take appends events in groups.
func (m *Mirror) take(ctx context.Context, events []event.Event) error {
	for len(events) > 0 {
		n, bytes := 0, 0
		for n < len(events) && n < appendMax && (n == 0 || bytes < appendBytesMax) {
			bytes += events[n].Size()
			n++
		}
		if err := m.feed.Append(ctx, events[:n]); err != nil {
			return fmt.Errorf("append sequences %d to %d: %w", events[0].Sequence, events[n-1].Sequence, err)
		}
		m.config.Observer.Taken(n, events[n-1].Sequence)
		events = events[n:]
	}
	return nil
}

// overtaken judges an append that failed. Where another mirror of the same
// source moved the head meanwhile, the next pass goes on above it.
func (m *Mirror) overtaken(ctx context.Context, head int64, err error) error {
	if !errors.Is(err, ErrConflict) {
		return err
	}
	position, readErr := m.feed.Position(ctx)
	if readErr == nil && position.Head > head {
		return &TemporaryError{Err: err}
	}
	return err
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
