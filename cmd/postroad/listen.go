package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postroad/consumer"
)

// listenFlags say how the local consumer answers.
type listenFlags struct {
	listen     string
	secret     string
	secretFile string
	raw        bool
	status     int
	retryAfter string
	every      int
	quiet      bool

	// With subscriber, a remote one's requests are forwarded instead.
	subscriber string
	forward    string
	after      int64
	skipErrors bool
}

func (p *program) listenCommand() *cobra.Command {
	f := &listenFlags{}
	command := &cobra.Command{
		Use:   "listen",
		Short: "Run a local consumer that prints what arrives",
		Long: `Run a consumer on this machine that prints what arrives, a line an event. With a
secret it verifies signatures and drops repeats, as the Go package consumer
does; without one it takes what comes.

With --status it answers some requests otherwise: every --every'th one.

With --subscriber it follows that subscriber's stream, with a token of the
subscriber, and posts to --forward what its endpoint would be sent: the same
headers, body and signature, in order, each until it is answered 2xx. The
subscriber's position stays where it is, and deliveries go on as before.`,
		Example: `  postroad listen --listen 127.0.0.1:9000 &
  postroad subscriber create me --endpoint http://127.0.0.1:9000/ --start beginning
  postroad listen --status 429 --retry-after 5 --every 100
  postroad listen --subscriber acme --forward http://127.0.0.1:3000/events --server https://postroad.example.com --token-file acme.token`,
		Args: cobra.NoArgs,
	}
	command.RunE = p.action(func(ctx context.Context, _ []string) error {
		if err := f.separate(command.Flags()); err != nil {
			return err
		}
		if f.subscriber != "" {
			return p.listenRemote(ctx, f)
		}
		return p.listen(ctx, f)
	})
	flags := command.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:9000", "`address` to listen on; port 0 takes a free one")
	flags.StringVar(&f.secret, "secret", "", "the subscriber's signing `secret` (whsec_...)")
	flags.StringVar(&f.secretFile, "secret-file", "", "`file` with the signing secret")
	flags.BoolVar(&f.raw, "raw", false, "the subscriber's format is raw, not reso")
	flags.IntVar(&f.status, "status", 0, "answer some requests with this `status`")
	flags.StringVar(&f.retryAfter, "retry-after", "", "the `Retry-After` of those answers: seconds or a date")
	flags.IntVar(&f.every, "every", 1, "which requests get that answer: every `n`'th")
	flags.BoolVar(&f.quiet, "quiet", false, "print only the count, at the end")
	flags.StringVar(&f.subscriber, "subscriber", "", "forward what the subscriber with this `id` is owed")
	flags.StringVar(&f.forward, "forward", "", "the `URL` to post it to")
	flags.Int64Var(&f.after, "after", -1, "begin after this `sequence`, not at the subscriber's position; 0 is the beginning")
	flags.BoolVar(&f.skipErrors, "skip-errors", false, "go on after an answer other than 2xx, instead of sending again")
	p.serverFlags(flags)
	return command
}

// separate refuses flags of the other way to listen.
func (f *listenFlags) separate(flags *pflag.FlagSet) error {
	others, reason := []string{"forward", "after", "skip-errors"}, "goes with --subscriber"
	if f.subscriber != "" {
		others, reason = []string{"listen", "secret", "secret-file", "raw", "status", "retry-after", "every"}, "does not go with --subscriber"
	}
	for _, name := range others {
		if flags.Changed(name) {
			return usagef("--%s %s", name, reason)
		}
	}
	return nil
}

func (p *program) listen(ctx context.Context, f *listenFlags) error {
	switch {
	case f.every < 1:
		return usagef("--every must be above 0")
	case f.status != 0 && (f.status < 200 || f.status > 599):
		return usagef("--status must be between 200 and 599")
	case f.status == 0 && f.retryAfter != "":
		return usagef("--retry-after goes with --status")
	}
	secret := f.secret
	if f.secretFile != "" {
		var err error
		if secret, err = p.readSecret(f.secretFile); err != nil {
			return err
		}
	}
	l := &listener{program: p, flags: f}
	handler, err := l.handler(secret)
	if err != nil {
		return usageError{err}
	}
	server, err := listenHTTP(ctx, "deliveries", f.listen)
	if err != nil {
		return err
	}
	server.serve(handler, slog.New(slog.DiscardHandler))
	if !p.json {
		p.printf("listening on %s/; Ctrl-C ends it\n", server.url())
	}
	select {
	case <-ctx.Done():
	case err = <-server.failed:
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	server.stop(stopping)
	if !p.json {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.printf("%s, %s\n", count(l.requests, "request"), count(l.events, "new event"))
	}
	return err
}

// listener is the local consumer. It remembers its position while it runs.
type listener struct {
	program *program
	flags   *listenFlags

	mu       sync.Mutex
	requests int64
	events   int64
	at       consumer.Position
	begun    bool
}

func (l *listener) handler(secret string) (http.Handler, error) {
	var inner http.Handler = http.HandlerFunc(l.takeUnsigned)
	if secret != "" {
		verified, err := consumer.New(consumer.Config{
			Secrets: []string{secret}, Store: l, Handle: l.handle, Raw: l.flags.raw, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, err
		}
		inner = verified
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w}
		l.mu.Lock()
		l.requests++
		scripted := l.flags.status != 0 && l.requests%int64(l.flags.every) == 0
		l.mu.Unlock()
		if scripted {
			_, _ = io.Copy(io.Discard, r.Body) // else the connection could not be used again
			if l.flags.retryAfter != "" {
				w.Header().Set("Retry-After", l.flags.retryAfter)
			}
			seen.WriteHeader(l.flags.status)
		} else {
			inner.ServeHTTP(seen, r)
		}
		if seen.status > 299 {
			l.print(r.Header, seen.status, "answered as told")
		} else if r.Header.Get("Postroad-Test") != "" {
			l.print(r.Header, seen.status, "test request")
		}
	}), nil
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// LastSequence implements consumer.Store.
func (l *listener) LastSequence(context.Context) (consumer.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, nil
}

func (l *listener) handle(_ context.Context, b consumer.Batch) error {
	l.mu.Lock()
	l.at = b.Position()
	l.events += int64(len(b.Events))
	first := !l.begun
	l.begun = true
	l.mu.Unlock()
	if b.Gap != nil && !first {
		l.line(map[string]any{"gapAfter": b.Gap.After, "gapThrough": b.Gap.Through},
			fmt.Sprintf("gap: events after %d through %d were never seen", b.Gap.After, b.Gap.Through))
	}
	for _, e := range b.Events {
		document := map[string]any{"sequence": e.Sequence, "attempt": b.Attempt}
		text := fmt.Sprintf("%d", e.Sequence)
		if e.ResourceName != "" {
			document["resourceName"], document["resourceRecordKey"] = e.ResourceName, e.ResourceRecordKey
			text += fmt.Sprintf("  %s %s", e.ResourceName, e.ResourceRecordKey)
		}
		if e.EventType != "" {
			document["eventType"] = e.EventType
			text += "  " + e.EventType
		}
		if e.Data != nil {
			document["data"] = e.Data
			text += "  " + string(e.Data)
		}
		if b.Attempt > 1 {
			text += fmt.Sprintf("  (attempt %d)", b.Attempt)
		}
		l.line(document, text)
	}
	return nil
}

// takeUnsigned prints a request whose sender it cannot check.
func (l *listener) takeUnsigned(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusOK)
	if r.Header.Get("Postroad-Test") != "" {
		return
	}
	events := int64(1)
	sequence := r.Header.Get("Postroad-Sequence")
	if last := r.Header.Get("Postroad-Last-Sequence"); last != "" {
		sequence += "-" + last
		events, _ = strconv.ParseInt(r.Header.Get("Postroad-Count"), 10, 64)
	}
	l.mu.Lock()
	l.events += events
	l.mu.Unlock()
	document := map[string]any{"sequence": sequence, "body": string(body)}
	text := sequence
	if kind := r.Header.Get("Postroad-Event-Type"); kind != "" {
		document["eventType"] = kind
		text += "  " + kind
	}
	l.line(document, text+"  "+string(bytes.TrimSpace(body)))
}

// bodyBytesMax holds the largest batch there is, 8 MiB, and what is around it.
const bodyBytesMax = 9 << 20

func (l *listener) print(header http.Header, status int, what string) {
	if l.flags.status != status {
		what = http.StatusText(status)
	}
	sequence := strings.TrimSpace(header.Get("Postroad-Sequence"))
	l.line(map[string]any{"sequence": sequence, "status": status, "note": what}, fmt.Sprintf("%s  HTTP %d  %s", sequence, status, strings.ToLower(what)))
}

// line writes one line, whole.
func (l *listener) line(document map[string]any, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.program.requestLine(l.flags.quiet, document, text)
}

// requestLine writes the line of one request, for programs or for people.
func (p *program) requestLine(quiet bool, document map[string]any, text string) {
	switch {
	case quiet:
	case p.json:
		_ = p.encodeLine(document)
	default:
		p.printf("%s  %s\n", time.Now().Format("15:04:05.000"), printable(text))
	}
}
