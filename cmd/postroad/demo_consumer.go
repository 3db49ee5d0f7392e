package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postroad/consumer"
)

// When the demo's consumer objects, once each.
const (
	demoAsksAt     = 100 // 429
	demoFailsAt    = 200 // 500
	demoRetryAfter = 5 * time.Second
)

// arrival is one request as the consumer's log has it. The line is written
// before the answer is sent, so that what was accepted is in the log whatever
// happens next.
type arrival struct {
	At time.Time `json:"at"`
	// Answered is when the answer was decided.
	Answered   time.Time `json:"answered"`
	Sequence   int64     `json:"sequence"`
	Attempt    int       `json:"attempt"`
	Status     int       `json:"status"`
	RetryAfter int       `json:"retryAfter,omitzero"` // seconds
	// Applied says that the event was new; Epoch is its feed's.
	Applied bool  `json:"applied,omitzero"`
	Epoch   int64 `json:"epoch,omitzero"`
}

// demoConsumer is the sample consumer: package consumer with a log for a
// database.
type demoConsumer struct {
	secret  string
	server  *httpServer
	log     *os.File
	arrived chan struct{} // has something in it after an arrival
	loaded  int           // arrivals of a demo before this one

	mu       sync.Mutex
	arrivals []arrival
	at       consumer.Position
	asked    bool
	failed   bool
}

func openDemoConsumer(ctx context.Context, dir string) (*demoConsumer, error) {
	c := &demoConsumer{arrived: make(chan struct{}, 1)}
	var err error
	if c.secret, err = demoSecret(filepath.Join(dir, "consumer-secret")); err != nil {
		return nil, err
	}
	if c.log, err = os.OpenFile(filepath.Join(dir, "consumer.ndjson"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644); err != nil {
		return nil, fmt.Errorf("open the consumer's log: %w", err)
	}
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the consumer's log: %w", err), c.log.Close())
	}
	logger := slog.New(slog.DiscardHandler)
	handler, err := consumer.New(consumer.Config{Secrets: []string{c.secret}, Store: c, Handle: c.handle, Logger: logger})
	if err != nil {
		return nil, errors.Join(err, c.log.Close())
	}
	if c.server, err = listenHTTP(ctx, "the consumer", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, c.log.Close())
	}
	c.server.serve(c.recording(handler), logger)
	return c, nil
}

// demoSecret is the signing secret, made at the first start.
func demoSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the consumer's secret: %w", err)
	}
	raw := make([]byte, 32)
	rand.Read(raw) // never fails: crypto/rand ends the process instead
	secret := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the consumer's secret: %w", err)
	}
	return secret, nil
}

// load takes the consumer up where its log ends.
func (c *demoConsumer) load() error {
	text, err := io.ReadAll(bufio.NewReader(c.log))
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		var a arrival
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		c.note(a)
	}
	c.loaded = len(c.arrivals)
	return nil
}

// note takes an arrival into the consumer's memory.
func (c *demoConsumer) note(a arrival) {
	c.arrivals = append(c.arrivals, a)
	c.asked = c.asked || a.Status == http.StatusTooManyRequests
	c.failed = c.failed || a.Status == http.StatusInternalServerError
	if a.Applied {
		c.at = consumer.Position{Epoch: a.Epoch, Sequence: a.Sequence}
	}
}

// record writes an arrival down: it is the consumer's transaction.
func (c *demoConsumer) record(a arrival) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode arrival: %w", err)
	}
	if _, err := c.log.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the consumer's log: %w", err)
	}
	c.note(a)
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	return nil
}

func (c *demoConsumer) url() string { return c.server.url() + "/events" }

func (c *demoConsumer) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	c.server.stop(ctx)
	_ = c.log.Close()
}

// requestKey is the context key of the request under way.
type requestKey struct{}

// recording notes the requests that do not get as far as handle: repeats, and
// those that are refused.
func (c *demoConsumer) recording(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &arrival{At: time.Now()}
		a.Sequence, _ = strconv.ParseInt(r.Header.Get("Postroad-Sequence"), 10, 64)
		a.Attempt, _ = strconv.Atoi(r.Header.Get("Postroad-Attempt"))
		seen := &statusWriter{ResponseWriter: w}
		inner.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), requestKey{}, a)))
		if a.Status == 0 && r.Header.Get("Postroad-Test") == "" {
			a.Status, a.Answered = seen.status, time.Now()
			_ = c.record(*a)
		}
	})
}

// LastSequence implements consumer.Store.
func (c *demoConsumer) LastSequence(context.Context) (consumer.Position, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, nil
}

// handle applies one batch, or objects.
func (c *demoConsumer) handle(ctx context.Context, b consumer.Batch) error {
	a, ok := ctx.Value(requestKey{}).(*arrival)
	if !ok || len(b.Events) != 1 {
		return errors.New("the demo's consumer takes one event a request")
	}
	a.Status, a.Answered = http.StatusOK, time.Now()
	c.mu.Lock()
	asked, failed := c.asked, c.failed
	c.mu.Unlock()
	var objection error
	switch {
	case a.Sequence == demoAsksAt && !asked:
		a.Status, a.RetryAfter = http.StatusTooManyRequests, int(demoRetryAfter/time.Second)
		objection = consumer.RetryAfter(demoRetryAfter, errors.New("the demo asks for a pause"))
	case a.Sequence == demoFailsAt && !failed:
		a.Status = http.StatusInternalServerError
		objection = errors.New("the demo fails once")
	case b.Gap != nil:
		a.Status = http.StatusInternalServerError
		objection = fmt.Errorf("events after %d through %d are missing", b.Gap.After, b.Gap.Through)
	default:
		a.Applied, a.Epoch = true, b.Epoch
	}
	return errors.Join(objection, c.record(*a))
}

// since are the arrivals from number n on.
func (c *demoConsumer) since(n int) []arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]arrival(nil), c.arrivals[n:]...)
}

// position is the sequence of the last event applied.
func (c *demoConsumer) position() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at.Sequence
}
