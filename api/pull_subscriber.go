package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

const (
	// pulledBytesMax is about the most bytes of the events that are handed out at
	// once.
	pulledBytesMax = 4 << 20
	// lookAgainBlocked is how often it is looked whether another process committed,
	// or a lease is over; lookAgainIdle, whether somebody sought back.
	lookAgainBlocked = 250 * time.Millisecond
	lookAgainIdle    = 5 * time.Second
)

// handedOut is what a subscriber of mode pull was given.
type handedOut struct {
	store.Pulled
	events []*event.Event
}

// pullEvents hands out what a subscriber is owed and, where there is nothing yet,
// waits for it.
func (s *Server) pullEvents(c *gin.Context, id string) error {
	values, err := query(c, "limit", "wait")
	if err != nil {
		return err
	}
	limit, err := integer(values, "limit", pageDefault, 1, store.PullEventsMax)
	if err != nil {
		return err
	}
	wait, err := waitOf(values)
	if err != nil {
		return err
	}
	out, err := s.pullWaiting(c.Request.Context(), grantOf(c), store.PullRequest{Subscriber: id, Limit: int(limit), Bytes: pulledBytesMax}, wait)
	if err != nil {
		return err
	}
	write(c, http.StatusOK, contentTypeJSON, appendHandedOut(&out))
	return nil
}

// pullWaiting hands out, and again whenever something may have changed, until there
// is something or the wait is over.
func (s *Server) pullWaiting(ctx context.Context, g *grant, r store.PullRequest, wait time.Duration) (handedOut, error) {
	ending, end := context.WithCancelCause(ctx)
	defer end(nil)
	waiting, cancel := context.WithTimeout(ending, wait)
	defer cancel()
	//nolint:contextcheck // the drain ends the wait beside the request's own context
	defer context.AfterFunc(s.draining, cancel)()
	if wait > 0 && g.tokenID() != "" { // the token of the environment does not end
		go s.watch(waiting, g, end)
	}
	for began := time.Now(); ; {
		out, err := s.pullOrAwait(ctx, waiting, r)
		switch {
		case err != nil || len(out.events) > 0:
			return out, err
		case waiting.Err() == nil, out.More && ctx.Err() == nil && time.Since(began) < s.config.DatabaseMax:
			continue
		case ctx.Err() != nil:
			return out, ctx.Err() // the client went away
		}
		if refused := (*Problem)(nil); errors.As(context.Cause(ending), &refused) {
			return out, refused
		}
		return out, nil // nothing came, or the server drains
	}
}

// pullOrAwait hands out what there is or, where there is nothing, waits until
// something may have changed.
func (s *Server) pullOrAwait(ctx, waiting context.Context, r store.PullRequest) (handedOut, error) {
	unchanged, change := context.WithCancel(waiting)
	defer change()
	defer s.pulls.on(r.Subscriber, change)() // before it is looked: no change is missed
	out, err := s.pullOnce(ctx, r)
	if err != nil || len(out.events) > 0 || out.More || waiting.Err() != nil {
		return out, err
	}
	s.polling.Add(1)
	defer s.polling.Add(-1)
	pause := lookAgainIdle
	if out.Blocked {
		pause = lookAgainBlocked
	}
	unchanged, cancel := context.WithTimeout(unchanged, pause)
	defer cancel()
	if !out.Blocked {
		err = s.config.Log.Wait(unchanged, out.FeedID, out.Position)
		if err == nil || unchanged.Err() == nil && !errors.Is(err, eventlog.ErrClosed) {
			return out, err
		}
	}
	<-unchanged.Done() // where the log is closed, too
	return out, nil
}

// pullOnce hands out what there is.
func (s *Server) pullOnce(ctx context.Context, r store.PullRequest) (handedOut, error) {
	bounded, cancel := context.WithTimeout(ctx, s.config.DatabaseMax)
	defer cancel()
	pulled, err := s.config.Store.Pull(bounded, r)
	out := handedOut{Pulled: pulled}
	if err != nil || pulled.Lease == uuid.Nil {
		return out, err
	}
	out.events, err = s.config.Log.Events(bounded, pulled.FeedID, pulled.Sequences)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil || len(out.events) == 0 { // removed since: what is left is above them
		out.More = true
		// Nobody gets them. Where this fails too the lease ends by itself.
		giving, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DatabaseMax)
		defer cancel()
		err = errors.Join(err, s.config.Store.DropLease(giving, r.Subscriber, pulled.Lease))
	}
	return out, err
}

func appendHandedOut(out *handedOut) []byte {
	size := eventOverhead
	for _, e := range out.events {
		size += e.Size() + eventOverhead
	}
	b := append(make([]byte, 0, size), `{"events":[`...)
	for i, e := range out.events {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.AppendJSON(b)
	}
	b = append(b, ']')
	if out.Lease != uuid.Nil {
		b = fmt.Appendf(b, `,"lease":{"id":%q,"expiresAt":%q}`, out.Lease, out.ExpiresAt.UTC().Format(time.RFC3339Nano))
	}
	b = strconv.AppendInt(append(b, `,"cursor":`...), out.Cursor, 10)
	b = strconv.AppendInt(append(b, `,"head":`...), out.Head, 10)
	return append(b, '}', '\n')
}

// commitEvents notes that what was handed out is dealt with.
func (s *Server) commitEvents(c *gin.Context, id string) error {
	var input struct {
		Sequence *int64 `json:"sequence"`
		Lease    string `json:"lease"`
	}
	if err := s.readControl(c, &input); err != nil {
		return err
	}
	request := store.CommitRequest{Subscriber: id}
	var faults event.FieldErrors
	if input.Sequence == nil || *input.Sequence < 0 || *input.Sequence == math.MaxInt64 {
		faults.Add("/sequence", "must be that of the last event that is dealt with")
	} else {
		request.Sequence = *input.Sequence
	}
	if input.Lease != "" {
		var err error
		if request.Lease, err = uuid.Parse(input.Lease); err != nil || request.Lease == uuid.Nil {
			faults.Add("/lease", "must be the id of a lease as it was handed out")
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	done, err := s.config.Store.Commit(c.Request.Context(), request)
	if err != nil {
		return err
	}
	if done.Events > 0 {
		s.pulls.change(id)
	}
	answer := struct {
		Cursor    int64      `json:"cursor"`
		Committed int        `json:"committed"`
		ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	}{done.Cursor, done.Events, utc(done.ExpiresAt)}
	return writeJSON(c, http.StatusOK, answer)
}

// pullProblem is what store answers to who fetches.
func pullProblem(err error) *Problem {
	var (
		held   *store.HeldBackError
		notOut *store.NotHandedOutError
		open   *store.ReplayOpenError
	)
	switch {
	case errors.Is(err, store.ErrPulls):
		return &Problem{Code: CodeWrongMode, Detail: "The subscriber is of mode pull: its consumer fetches what it is owed, and nothing is sent to it. PATCH mode to push first."}
	case errors.Is(err, store.ErrPushes):
		return &Problem{Code: CodeWrongMode, Detail: "The subscriber is of mode push: what it is owed is sent to its endpoint, what was handed out and not committed too. PATCH mode to pull first."}
	case errors.As(err, &held):
		return &Problem{Code: CodeHeldBack, Detail: "Nothing is handed out: " + held.Reason + ".", RetryAfter: held.For}
	case errors.Is(err, store.ErrLeaseWanted):
		return invalidAt("/lease", "is required, as more than one lease may be out: send the id that came with the events")
	case errors.Is(err, store.ErrLeaseOver):
		return atPointer(CodeLeaseOver, "/lease", "is over, or was ended by a seek or a switch: what was not committed of it is handed out again")
	case errors.As(err, &notOut):
		return atPointer(CodeNotHandedOut, "/sequence", "cannot be committed: "+notOut.Error())
	case errors.As(err, &open):
		return invalidAt("/mode", "cannot become pull: "+open.Error())
	}
	return nil
}

// pullWatch tells those who wait in this process that something changed for a
// subscriber.
type pullWatch struct {
	mu       sync.Mutex
	watchers map[string]map[*context.CancelFunc]struct{}
}

// on has tell called at each change, until off is called.
func (w *pullWatch) on(id string, tell context.CancelFunc) (off func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchers == nil {
		w.watchers = map[string]map[*context.CancelFunc]struct{}{}
	}
	if w.watchers[id] == nil {
		w.watchers[id] = map[*context.CancelFunc]struct{}{}
	}
	w.watchers[id][&tell] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.watchers[id], &tell); len(w.watchers[id]) == 0 {
			delete(w.watchers, id)
		}
	}
}

func (w *pullWatch) change(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tell := range w.watchers[id] {
		(*tell)()
	}
}
