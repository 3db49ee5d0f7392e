package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postroad/eventlog"
	"postroad/store"
)

// AnnounceConfig says how the active waker tells people, on the feed _system,
// what they have to know. The zero value of a field means its default.
type AnnounceConfig struct {
	// Every is how often what was noted is told. Default 1 s.
	Every time.Duration
	// Lag is how often subscribers with an alert are looked at. Default 15 s.
	Lag time.Duration
	// Lasting is how often feeds that are held back and tokens that end are looked
	// for. Default 1 min.
	Lasting time.Duration
	// Pinned is how long a feed is held back before that is told, and PinnedAgain
	// when it is told again. Default 5 min and 24 h: the position of a subscriber
	// at rest may be behind by a minute.
	Pinned, PinnedAgain time.Duration
	// TokenEnds is how long before its end a token is told of. Default 7 days.
	TokenEnds time.Duration
	// Max is the most that are told at once. Default 500.
	Max int
}

func (c AnnounceConfig) withDefaults() AnnounceConfig {
	setDefault(&c.Every, time.Second)
	setDefault(&c.Lag, 15*time.Second)
	setDefault(&c.Lasting, time.Minute)
	setDefault(&c.Pinned, 5*time.Minute)
	setDefault(&c.PinnedAgain, 24*time.Hour)
	setDefault(&c.TokenEnds, 7*24*time.Hour)
	setDefault(&c.Max, 500)
	return c
}

const (
	// lastingForget keeps what comes and goes from being told each time.
	lastingForget = time.Hour
	// pinnedMax bounds how many feeds are told of.
	pinnedMax = 1_000
)

// announceLoop puts what was noted into the feed _system.
func (w *turn) announceLoop(ctx context.Context) {
	w.every(ctx, "announce", w.config.Announce.Every, w.config.RetryDelay, w.announce)
}

// announce tells in order. What is in the feed, but was not removed because the
// process died in between, is in it once all the same: each notice has an
// idempotency key of its own, and another process is not ahead by more than that.
func (w *turn) announce(ctx context.Context) error {
	for {
		n, feed, err := w.notices(ctx)
		if err != nil || len(n.IDs) == 0 {
			return err
		}
		if err := w.tell(ctx, feed, n); err != nil {
			return err
		}
		w.counters.Announced.Add(int64(len(n.IDs)))
		if len(n.IDs) < w.config.Announce.Max {
			return nil
		}
	}
}

// notices reads what has to be told, and the feed where there is something.
func (w *turn) notices(ctx context.Context) (n store.Notices, feed eventlog.Feed, err error) {
	defer w.admit(ctx)()
	n, err = w.store.Notices(ctx, w.config.Announce.Max)
	if err == nil && len(n.IDs) > 0 {
		feed, err = w.log.Feed(ctx, eventlog.SystemFeed)
	}
	return n, feed, err
}

// tell appends and then removes. One that the log refuses keeps no other from
// being told.
func (w *turn) tell(ctx context.Context, feed eventlog.Feed, n store.Notices) error {
	_, err := w.log.Append(ctx, feed, n.Events)
	if refused(err) && len(n.IDs) > 1 {
		for i := range n.IDs {
			if err := w.tell(ctx, feed, store.Notices{IDs: n.IDs[i : i+1], Events: n.Events[i : i+1]}); err != nil {
				return err
			}
		}
		return nil
	}
	if refused(err) {
		w.logger.Error("notice refused by the log", "type", n.Events[0].EventType, "key", n.Events[0].ResourceRecordKey, "error", err)
	} else if err != nil {
		return err
	}
	defer w.admit(ctx)()
	return w.store.DropNotices(ctx, n.IDs)
}

// refused reports an error that trying again cannot end. A conflict is a notice
// that was told by a process of another release, in other words.
func refused(err error) bool {
	var conflict *eventlog.ConflictError
	var data *eventlog.DataError
	return errors.As(err, &conflict) || errors.As(err, &data)
}

// lagLoop looks for subscribers that are further behind than their alert allows.
func (w *turn) lagLoop(ctx context.Context) {
	w.every(ctx, "alerts", w.config.Announce.Lag, w.config.RetryDelay, func(ctx context.Context) error {
		for after := ""; ; {
			release := w.admit(ctx)
			next, err := w.store.WatchLag(ctx, after, w.config.BatchMax)
			release()
			if err != nil || next == "" {
				return err
			}
			after = next
		}
	})
}

// lastingLoop looks for what lasts: feeds that are held back, tokens that end.
func (w *turn) lastingLoop(ctx context.Context) {
	w.every(ctx, "notices", w.config.Announce.Lasting, w.config.RetryDelay, func(ctx context.Context) error {
		return errors.Join(w.notePinned(ctx), w.noteTokens(ctx))
	})
}

// pinnedNotice is the data of log.pinned.
type pinnedNotice struct {
	Type           string    `json:"type"`
	Text           string    `json:"text"`
	At             time.Time `json:"at"`
	Feed           string    `json:"feed"`
	Subscriber     string    `json:"subscriber"`
	Cursor         int64     `json:"cursor"`
	OldestSequence int64     `json:"oldestSequence"`
	OldestAt       time.Time `json:"oldestAt"`
	Since          time.Time `json:"since"`
}

func (w *turn) notePinned(ctx context.Context) error {
	defer w.admit(ctx)()
	pinned, err := w.log.Pinned(ctx, w.config.Announce.Pinned, pinnedMax)
	if err != nil {
		return err
	}
	var there []store.Lasting
	for _, p := range pinned {
		if p.Feed == eventlog.SystemFeed {
			continue // telling of it would only make more of it
		}
		at := fmt.Sprintf("is at %d,", p.Cursor)
		if p.Low < p.Cursor {
			at = fmt.Sprintf("has set aside, or replays, events from %d on,", p.Low+1)
		}
		there = append(there, store.Lasting{
			Key: strconv.FormatInt(p.FeedID, 10) + "/" + p.Subscriber, ResourceName: "Feed", ResourceKey: p.Feed,
			Data: pinnedNotice{
				Type: store.NoticeLogPinned, At: p.Since.Add(p.For), Feed: p.Feed, Subscriber: p.Subscriber, Cursor: p.Cursor,
				OldestSequence: p.OldestSequence, OldestAt: p.OldestAt, Since: p.Since,
				Text: fmt.Sprintf("feed %s keeps events from %d on beyond its age since %s: subscriber %s, which %s is still owed them",
					p.Feed, p.OldestSequence, clock(p.Since), p.Subscriber, at),
			},
		})
	}
	return w.store.TellLasting(ctx, store.NoticeLogPinned, there, w.config.Announce.PinnedAgain, lastingForget)
}

// tokenNotice is the data of token.expiring.
type tokenNotice struct {
	Type        string    `json:"type"`
	Text        string    `json:"text"`
	At          time.Time `json:"at"`
	Token       string    `json:"token"`
	Role        string    `json:"role"`
	Feeds       []string  `json:"feeds,omitempty"`
	Subscriber  string    `json:"subscriber,omitempty"`
	Description string    `json:"description,omitempty"`
	ExpiresAt   time.Time `json:"expiresAt"`
}

func (w *turn) noteTokens(ctx context.Context) error {
	defer w.admit(ctx)()
	tokens, err := w.store.ExpiringTokens(ctx, w.config.Announce.TokenEnds)
	if err != nil {
		return err
	}
	there := make([]store.Lasting, len(tokens))
	for i, t := range tokens {
		who := strings.Join(append([]string{t.Role}, t.Feeds...), " ")
		if t.Subscriber != "" {
			who += " " + t.Subscriber
		}
		there[i] = store.Lasting{
			Key: t.ID, ResourceName: "Token", ResourceKey: t.ID,
			Data: tokenNotice{
				Type: store.NoticeTokenExpiring, At: t.Now.UTC(), Token: t.ID, Role: t.Role, Feeds: t.Feeds, Subscriber: t.Subscriber,
				Description: t.Description, ExpiresAt: t.ExpiresAt.UTC(),
				Text: fmt.Sprintf("token %s (%s) ends %s", t.ID, who, clock(*t.ExpiresAt)),
			},
		}
	}
	return w.store.TellLasting(ctx, store.NoticeTokenExpiring, there, 0, lastingForget)
}

// clock writes a time for people.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
