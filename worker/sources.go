package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postroad/event"
	"postroad/eventlog"
	"postroad/mirror"
)

// SourcesConfig says how the sources of feeds are followed. The zero value of a
// period means its default.
type SourcesConfig struct {
	// HTTP makes the requests to them; nil: no source is followed.
	HTTP mirror.Doer
	// UserAgent names the program to them.
	UserAgent string
	// Look is how often it is looked for feeds whose source is new, changed or
	// gone. Default 2 s.
	Look time.Duration
	// Note is how often at most what became of a source is written down while all
	// is well. Default 5 s.
	Note time.Duration
	// Recheck and RecheckSequences are those of mirror.Config, with its defaults.
	Recheck          time.Duration
	RecheckSequences int64
	// RetryDelay and RetryDelayMax are those of mirror.Config. Default 1 s and
	// 5 min: nobody watches a worker as they watch a command.
	RetryDelay, RetryDelayMax time.Duration
}

func (c SourcesConfig) withDefaults() SourcesConfig {
	setDefault(&c.UserAgent, "Postroad/dev")
	setDefault(&c.Look, 2*time.Second)
	setDefault(&c.Note, 5*time.Second)
	setDefault(&c.RetryDelay, time.Second)
	setDefault(&c.RetryDelayMax, 5*time.Minute)
	return c
}

// followed is one source that is followed now.
type followed struct {
	version int64
	stop    context.CancelFunc
	done    chan struct{}
}

// sourcesLoop follows the sources of all feeds that have one.
func (w *turn) sourcesLoop(ctx context.Context) {
	if w.config.Sources.HTTP == nil {
		return
	}
	running := map[int64]followed{}
	defer func() {
		for _, f := range running {
			f.stop()
		}
		for _, f := range running {
			<-f.done
		}
		w.counters.Sources.Store(0)
	}()
	w.every(ctx, "sources", w.config.Sources.Look, w.config.Sources.Look, func(ctx context.Context) error {
		release := w.admit(ctx)
		feeds, err := w.log.SourcedFeeds(ctx)
		release()
		if err != nil {
			return err
		}
		w.followSources(ctx, feeds, running)
		return nil
	})
}

// followSources begins and ends what has to be for these feeds to be followed.
func (w *turn) followSources(ctx context.Context, feeds []eventlog.Feed, running map[int64]followed) {
	for id, f := range running {
		same := func(feed eventlog.Feed) bool { return feed.ID == id && feed.Version == f.version }
		if !slices.ContainsFunc(feeds, same) {
			f.stop()
			<-f.done
			delete(running, id)
		}
	}
	for _, feed := range feeds {
		if _, is := running[feed.ID]; is || feed.Source == nil {
			continue
		}
		following, stop := context.WithCancel(ctx)
		f := followed{feed.Version, stop, make(chan struct{})}
		running[feed.ID] = f
		go func() {
			defer close(f.done)
			s := &sourceRun{turn: w, feed: feed, state: feed.Source.State}
			s.run(following)
		}()
	}
	w.counters.Sources.Store(int64(len(running)))
}

// sourceRun follows one source.
type sourceRun struct {
	*turn
	feed eventlog.Feed

	// The mirror's goroutine has these.
	state   eventlog.SourceState
	notedAt time.Time
	failing bool // as counted
}

func (s *sourceRun) run(ctx context.Context) {
	config, err := s.mirrorConfig()
	if err == nil {
		config.Observer = s.observer(ctx)
		var m *mirror.Mirror
		if m, err = mirror.New(config, sourceFeed{s.log, s.feed}); err == nil {
			err = m.Run(ctx)
		}
	}
	if ctx.Err() == nil {
		// It cannot even begin, for want of the master key say.
		s.fault(ctx, err, 0)
		<-ctx.Done()
	}
	s.fails(false)
}

func (s *sourceRun) mirrorConfig() (mirror.Config, error) {
	source, c := s.feed.Source, s.config.Sources
	secrets, err := s.store.OpenSource(s.feed.Name, source.Sealed)
	if err != nil {
		return mirror.Config{}, err
	}
	config := mirror.Config{
		Root: source.Config.URL, HTTP: c.HTTP, UserAgent: c.UserAgent, Poll: source.Config.Poll.Std(),
		Recheck: c.Recheck, RecheckSequences: c.RecheckSequences, RetryDelay: c.RetryDelay, RetryDelayMax: c.RetryDelayMax,
		Reported: s.state.LateSequences, Logger: s.logger.With("feed", s.feed.Name),
	}
	if config.Horizon = source.Config.Horizon.Std(); config.Horizon == 0 {
		config.Horizon = -1 // none; zero is the default
	}
	auth := source.Config.Auth
	switch auth.Type {
	case event.AuthBearer:
		config.Auth = mirror.Auth{Token: secrets.Token}
	case event.AuthClientCredentials:
		config.Auth = mirror.Auth{TokenURL: auth.TokenURL, ClientID: auth.ClientID, ClientSecret: secrets.ClientSecret, Scope: auth.Scope}
	}
	return config, nil
}

// observer notes what the mirror tells. Whatever goes wrong, or was wrong before,
// is written down at once.
func (s *sourceRun) observer(ctx context.Context) mirror.Observer {
	return mirror.Observer{
		Taken: func(count int, _ int64) { s.counters.SourceEvents.Add(int64(count)) },
		Read: func(_, sourceHead int64) {
			recovered := s.state.Error != ""
			s.fails(false)
			s.state.SourceHead, s.state.ReadAt = sourceHead, time.Now()
			s.state.Error, s.state.FailingSince, s.state.RetryAt = "", time.Time{}, time.Time{}
			s.note(ctx, recovered)
		},
		Late: func(l mirror.Late) {
			s.counters.SourceLate.Add(1)
			s.logger.Warn("event of a source came too late to be taken", "feed", s.feed.Name, "sequence", l.Event.Sequence,
				"resource_name", l.Event.ResourceName, "resource_record_key", l.Event.ResourceRecordKey, "detail", l.String())
			s.state.Late++
			s.state.LateAt, s.state.LateSequences = time.Now(), append(s.state.LateSequences, l.Event.Sequence)
			s.note(ctx, true)
		},
		Fault: func(err error, retryIn time.Duration) { s.fault(ctx, err, retryIn) },
	}
}

func (s *sourceRun) fault(ctx context.Context, err error, retryIn time.Duration) {
	s.counters.SourceFaults.Add(1)
	s.fails(true)
	s.logger.Warn("source not read", "feed", s.feed.Name, "error", err, "retry_in", retryIn)
	if s.state.Error == "" {
		s.state.FailingSince = time.Now()
	}
	s.state.Error, s.state.RetryAt = err.Error(), time.Now().Add(retryIn)
	s.note(ctx, true)
}

// fails counts the source among those that fail, or no longer.
func (s *sourceRun) fails(failing bool) {
	switch {
	case failing && !s.failing:
		s.counters.SourcesFailing.Add(1)
	case s.failing && !failing:
		s.counters.SourcesFailing.Add(-1)
	}
	s.failing = failing
}

// note writes the state down, now or if it was not for a while.
func (s *sourceRun) note(ctx context.Context, now bool) {
	if !now && time.Since(s.notedAt) < s.config.Sources.Note {
		return
	}
	s.notedAt = time.Now()
	if err := s.log.NoteSource(ctx, s.feed, s.state); err != nil && ctx.Err() == nil {
		s.logger.Warn("state of source not written", "feed", s.feed.Name, "error", err)
	}
}

// sourceFeed is a feed of the log, for a mirror.
type sourceFeed struct {
	log  *eventlog.Log
	feed eventlog.Feed
}

// Position implements mirror.Feed.
func (f sourceFeed) Position(ctx context.Context) (mirror.Position, error) {
	feed, err := f.log.Feed(ctx, f.feed.Name)
	if err != nil {
		return mirror.Position{}, &mirror.TemporaryError{Err: err}
	}
	if feed.ID != f.feed.ID || feed.Version != f.feed.Version {
		return mirror.Position{}, errors.New("the feed's configuration has changed") // this run is about to be ended
	}
	return mirror.Position{Head: feed.Head, Whole: max(feed.FloorSequence, feed.CompactedThrough)}, nil
}

// Append implements mirror.Feed. Whatever became of an append, it can be made
// again: under supplied sequences that is a repeat.
func (f sourceFeed) Append(ctx context.Context, events []event.Event) error {
	_, err := f.log.Append(ctx, f.feed, events)
	var conflict *eventlog.ConflictError
	var refused *eventlog.DataError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return fmt.Errorf("%w: %w", mirror.ErrConflict, err)
	case errors.As(err, &refused):
		return err
	}
	after, _ := eventlog.RetryAfter(err)
	return &mirror.TemporaryError{Err: err, RetryAfter: after}
}

// Records implements mirror.Feed.
func (f sourceFeed) Records(ctx context.Context, after int64, limit int) ([]event.Event, error) {
	page, err := f.log.Read(ctx, f.feed.ID, after, limit)
	if err != nil {
		return nil, &mirror.TemporaryError{Err: err} // retention may have raised the floor
	}
	return page.Events, nil
}
