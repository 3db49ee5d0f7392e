package mirror

import (
	"context"
	"fmt"

	"postroad/event"
)

// recheck reads the latest numbers that the feed has from the source once more,
// and reports what the source has and the feed has not. What the source no
// longer has was removed there, as RCP-27 lets it.
func (m *Mirror) recheck(ctx context.Context) error {
	position, err := m.feed.Position(ctx)
	if err != nil {
		return fmt.Errorf("read the feed's head: %w", err)
	}
	from := max(position.Head-m.config.RecheckSequences, position.Whole)
	for sequence := range m.reported {
		if sequence <= from {
			delete(m.reported, sequence)
		}
	}
	ours := records{feed: m.feed, next: from}
	none := true
	for w := m.walk(from); from < position.Head; none = false {
		events, ended, err := w.page(ctx)
		if err == nil && ended && none {
			return m.setBack(ctx, position.Head)
		}
		if err != nil || ended {
			return err
		}
		for i := range events {
			e := &events[i]
			if e.Sequence > position.Head {
				return nil
			}
			have, err := ours.key(ctx, e.Sequence)
			if err != nil {
				return err
			}
			if err := m.compare(ctx, e, have); err != nil {
				return err
			}
		}
	}
	return nil
}

// setBack tells a source that begins its numbers anew, or was restored from long
// ago, from one that removed its latest events. What it has now is below the
// feed's head and would never be seen.
func (m *Mirror) setBack(ctx context.Context, feedHead int64) error {
	head, err := m.sourceHead(ctx)
	if err != nil || head == 0 || head >= feedHead-m.config.RecheckSequences {
		return err
	}
	return &Fault{URL: m.resource, Reason: fmt.Sprintf("the highest sequence is %d and was %d: what a source numbers anew needs a new feed", head, feedHead)}
}

// compare reports an event, once, that the feed has not, or has as another
// record's.
func (m *Mirror) compare(ctx context.Context, e *event.Event, have event.Key) error {
	if _, told := m.reported[e.Sequence]; told || have == e.Key() {
		return nil
	}
	// Retention or compaction may have removed it since the position was read.
	position, err := m.feed.Position(ctx)
	if err != nil || e.Sequence <= position.Whole {
		return err
	}
	m.reported[e.Sequence] = struct{}{}
	m.config.Observer.Late(Late{Event: *e, Instead: have})
	return nil
}

// records reads the feed's own events along with the source's.
type records struct {
	feed  Feed
	page  []event.Event
	next  int64 // the last one read
	ended bool
}

// key returns the record that the feed has under a sequence; zero: none. It is
// asked for rising sequences.
func (r *records) key(ctx context.Context, sequence int64) (event.Key, error) {
	for {
		for len(r.page) > 0 && r.page[0].Sequence < sequence {
			r.page = r.page[1:]
		}
		switch {
		case len(r.page) > 0 && r.page[0].Sequence == sequence:
			return r.page[0].Key(), nil
		case len(r.page) > 0 || r.ended:
			return event.Key{}, nil
		}
		page, err := r.feed.Records(ctx, r.next, appendMax)
		if err != nil {
			return event.Key{}, fmt.Errorf("read the feed above %d: %w", r.next, err)
		}
		if r.ended = len(page) == 0; !r.ended {
			r.page, r.next = page, page[len(page)-1].Sequence
		}
	}
}
