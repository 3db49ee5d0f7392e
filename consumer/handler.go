package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// bodyBytesMaxDefault holds the largest batch a subscriber can be configured
// to, 8 MiB.
const bodyBytesMaxDefault = 9 << 20

// Store is the consumer's memory of where it stands.
type Store interface {
	// LastSequence returns the position that was saved with the last events
	// applied; the zero Position at first.
	LastSequence(ctx context.Context) (Position, error)
}

// Config is a Handler's configuration.
type Config struct {
	// Secrets are the signing secrets that may sign at the moment: one, or old
	// and new during a rotation.
	Secrets []string
	// Store tells where the consumer stands; nil: Handle gets every batch whole,
	// several at once too, and drops repeats itself, by the sequence of each event.
	// That is for a subscriber with several lanes, or whose onExhausted is not halt:
	// an event may come there after others with higher sequences, and a position
	// would take it for a repeat.
	Store Store
	// Handle applies a batch's events and remembers its Position, both in one
	// transaction. With a Store it is called with new events and those of replays
	// only, and never twice at once by one Handler; where several processes
	// receive, its transaction must look at the position again (Batch.After). Its
	// error decides the answer: see RetryAfter, Poison and AcceptedThrough; any
	// other is a 500.
	Handle func(ctx context.Context, b Batch) error
	// Raw says that the subscriber's format is raw, not reso.
	Raw bool
	// BodyBytesMax bounds a request's body; default 9 MiB.
	BodyBytesMax int64
	// Tolerance is how far a request's time may be from ours; default 300 s.
	Tolerance time.Duration
	// Logger gets a line for each request that is not answered with 2xx;
	// default slog.Default.
	Logger *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Handler receives one subscriber's deliveries.
type Handler struct {
	cfg      Config
	verifier *Verifier
	turn     chan struct{} // holds one token: whoever has it handles
}

// New returns a handler for POST requests at whatever path it is mounted.
func New(cfg Config) (*Handler, error) {
	if cfg.Handle == nil {
		return nil, errors.New("make consumer: Handle is required")
	}
	verifier, err := NewVerifier(cfg.Secrets...)
	if err != nil {
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	cfg.BodyBytesMax = cmp.Or(cfg.BodyBytesMax, bodyBytesMaxDefault)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now != nil {
		verifier.now = cfg.Now
	}
	verifier.tolerance = cmp.Or(cfg.Tolerance, toleranceDefault)
	return &Handler{cfg: cfg, verifier: verifier, turn: make(chan struct{}, 1)}, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := h.receive(w, r)
	if err == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	status, text := h.describe(w.Header(), err)
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, "delivery not accepted",
		slog.String("webhook_id", r.Header.Get("Webhook-Id")), slog.Int("status", status), slog.Any("error", err))
	http.Error(w, text, status)
}

// describe turns an error into an answer. Its text goes to Postroad's attempts
// log, so it says no more than the status does.
func (h *Handler) describe(header http.Header, err error) (status int, text string) {
	var accepted *acceptedError
	if errors.As(err, &accepted) {
		header.Set("Postroad-Accepted-Through", strconv.FormatInt(accepted.sequence, 10))
	}
	var wait *retryAfterError
	if errors.As(err, &wait) {
		// Whole seconds are all the header can say: rather late than early.
		seconds := max((wait.wait+time.Second-1)/time.Second, 0)
		header.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
		return http.StatusTooManyRequests, "try again later"
	}
	var poison *poisonError
	if errors.As(err, &poison) {
		return http.StatusUnprocessableEntity, "this event cannot be applied"
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		if refused.status == http.StatusMethodNotAllowed {
			header.Set("Allow", http.MethodPost)
		}
		return refused.status, refused.text
	}
	return http.StatusInternalServerError, "the events could not be applied"
}

// refusedError refuses a request before it is handled.
type refusedError struct {
	status int
	text   string
	cause  error
}

func (e *refusedError) Error() string {
	if e.cause == nil {
		return e.text
	}
	return e.text + ": " + e.cause.Error()
}

func (e *refusedError) Unwrap() error { return e.cause }

func (h *Handler) receive(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return &refusedError{http.StatusMethodNotAllowed, "deliveries are POST requests", nil}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.BodyBytesMax))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &refusedError{http.StatusRequestEntityTooLarge, "the body is too large", nil}
	}
	if err != nil {
		return &refusedError{http.StatusBadRequest, "the body could not be read", err}
	}
	if err := h.verifier.Verify(r.Header, body); err != nil {
		return &refusedError{http.StatusUnauthorized, "the request is not signed as it must be", err}
	}
	if r.Header.Get("Postroad-Test") != "" {
		return nil
	}
	batch, err := parseBatch(r.Header, body, h.cfg.Raw)
	if err != nil {
		return &refusedError{http.StatusBadRequest, "the request is not a delivery of the format expected", err}
	}
	return h.handle(r.Context(), batch)
}

// handle lets one batch at a time find out what of it is new. Requests come
// one after the other, but one that Postroad gave up may still be running when
// it is sent again.
func (h *Handler) handle(ctx context.Context, batch Batch) error {
	if h.cfg.Store == nil {
		return h.cfg.Handle(ctx, batch)
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	at, err := h.cfg.Store.LastSequence(ctx)
	if err != nil {
		return fmt.Errorf("read position: %w", err)
	}
	if batch.Epoch < at.Epoch {
		// Neither new nor a repeat: someone must look at it.
		return &refusedError{http.StatusConflict, "the feed's epoch went back", nil}
	}
	batch = batch.After(at)
	if len(batch.Events) == 0 {
		return nil
	}
	return h.cfg.Handle(ctx, batch)
}

type retryAfterError struct {
	wait time.Duration
	err  error
}

func (e *retryAfterError) Error() string {
	return fmt.Sprintf("not before %s: %v", e.wait, e.err)
}
func (e *retryAfterError) Unwrap() error { return e.err }

// RetryAfter makes an error that halts the whole subscriber for a while, at no
// cost in attempts: 429 with Retry-After, rounded up to seconds.
func RetryAfter(wait time.Duration, err error) error { return &retryAfterError{wait, err} }

type poisonError struct{ err error }

func (e *poisonError) Error() string { return fmt.Sprintf("event cannot be applied: %v", e.err) }
func (e *poisonError) Unwrap() error { return e.err }

// Poison makes an error that blames the event: 422. In a batch Postroad sends
// smaller ones until it has found the event, and after its attempts does with
// it what the subscriber's onExhausted says.
func Poison(err error) error { return &poisonError{err} }

type acceptedError struct {
	sequence int64
	err      error
}

func (e *acceptedError) Error() string {
	return fmt.Sprintf("accepted through %d: %v", e.sequence, e.err)
}
func (e *acceptedError) Unwrap() error { return e.err }

// AcceptedThrough makes an error that says how far a batch was applied: the
// events up to that sequence, and the position, are saved. err decides the
// answer for the rest.
func AcceptedThrough(sequence int64, err error) error { return &acceptedError{sequence, err} }
