package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postroad/internal/apiclient"
)

const (
	forwardTimeout  = 30 * time.Second
	forwardPauseMax = 30 * time.Second
	// signatureFresh is how old a signature may get before the request is asked for
	// anew: consumers refuse those that are older than 5 minutes.
	signatureFresh = 2 * time.Minute
)

// forwarder posts to a program on this machine what a subscriber's endpoint would
// be sent.
type forwarder struct {
	program *program
	flags   *listenFlags
	url     string
	client  *http.Client
	// wait is how long to wait after the nth refusal of a request in a row.
	wait func(n int, answer *http.Response) time.Duration

	requests int64
	// at is the last request that was taken or skipped, and ahead how far the server's
	// clock, which signatures carry, is ahead of ours at most.
	at    int64
	ahead time.Duration
	known bool // ahead is
}

// forwardedRequest is an item of a subscriber's stream of requests.
type forwardedRequest struct {
	Sequence int64             `json:"sequence"`
	Method   string            `json:"method"`
	Headers  map[string]string `json:"headers"`
	Body     string            `json:"body"`
}

func (p *program) listenRemote(ctx context.Context, f *listenFlags) error {
	target, err := url.Parse(f.forward)
	switch {
	case f.forward == "":
		return usagef("--subscriber goes with --forward, the URL of the program to send to")
	case err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https":
		return usagef("--forward must be a URL such as http://127.0.0.1:3000/events")
	case f.after < -1:
		return usagef("--after must not be below 0")
	}
	transport := &http.Transport{DisableCompression: true, IdleConnTimeout: time.Minute}
	defer transport.CloseIdleConnections()
	forward := &forwarder{
		program: p, flags: f, url: target.String(), at: f.after, wait: forwardPause,
		client: &http.Client{
			Transport: transport, Timeout: forwardTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if !p.json {
		p.printf("forwarding what %s is owed to %s; its position stays where it is; Ctrl-C ends it\n", f.subscriber, forward.url)
	}
	s := &apiclient.Stream{Path: subscriberPath(f.subscriber, "/stream"), Query: url.Values{"as": {"requests"}}, After: f.after}
	err = p.follow(ctx, s, func(i apiclient.Item) error { return forward.take(ctx, i) })
	if !p.json {
		p.printf("%s", count(forward.requests, "request"))
		if forward.at >= 0 {
			p.printf("; go on with --after %s", decimal(forward.at))
		}
		p.printf("\n")
	}
	return err
}

// take posts a request until it is answered 2xx.
func (f *forwarder) take(ctx context.Context, i apiclient.Item) error {
	var r forwardedRequest
	if err := json.Unmarshal(i.Line, &r); err != nil {
		return fmt.Errorf("read request %d: %w", i.Sequence, err)
	}
	for n := 1; ; n++ {
		if f.stale(r) {
			return apiclient.ErrAgain // signed anew
		}
		taken, pause, err := f.post(ctx, r, n)
		switch {
		case err != nil:
			return err
		case taken || f.flags.skipErrors:
			f.at = r.Sequence
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// post makes one attempt, and prints what came of it.
func (f *forwarder) post(ctx context.Context, r forwardedRequest, n int) (taken bool, pause time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, r.Method, f.url, strings.NewReader(r.Body))
	if err != nil {
		return false, 0, fmt.Errorf("make request %d: %w", r.Sequence, err)
	}
	for name, value := range r.Headers {
		request.Header.Set(name, value)
	}
	started := time.Now()
	answer, err := f.client.Do(request)
	took := time.Since(started)
	if ctx.Err() != nil {
		return false, 0, ctx.Err()
	}
	f.requests++
	document := map[string]any{"sequence": r.Sequence, "attempt": n, "durationMs": float64(took.Microseconds()) / 1000}
	text := ""
	if err != nil {
		var outer *url.Error // it repeats method and URL
		if errors.As(err, &outer) {
			err = outer.Err
		}
		document["error"], text = err.Error(), err.Error()
	} else {
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, bodyBytesMax)) // else the connection could not be used again
		_ = answer.Body.Close()
		taken = answer.StatusCode >= 200 && answer.StatusCode <= 299
		document["status"], text = answer.StatusCode, fmt.Sprintf("HTTP %d in %.1f ms", answer.StatusCode, float64(took.Microseconds())/1000)
	}
	switch {
	case taken:
	case f.flags.skipErrors:
		text += "; skipped"
	default:
		pause = f.wait(n, answer)
		text += fmt.Sprintf("; again in %s", pause.Round(100*time.Millisecond))
	}
	f.line(document, strings.Join(strings.Fields(fmt.Sprintf("%d %s", r.Sequence, request.Header.Get("Postroad-Event-Type"))), "  ")+"  "+text)
	return taken, pause, nil
}

func (f *forwarder) line(document map[string]any, text string) {
	f.program.requestLine(f.flags.quiet, document, text)
}

// stale reports whether the signature is about to be too old, by the server's clock.
// What comes first was just signed, so it tells how the clocks differ.
func (f *forwarder) stale(r forwardedRequest) bool {
	signed := ""
	for name, value := range r.Headers {
		if strings.EqualFold(name, "Webhook-Timestamp") || strings.EqualFold(name, "Svix-Timestamp") {
			signed = value
		}
	}
	seconds, err := strconv.ParseInt(signed, 10, 64)
	if err != nil {
		return false // not signed
	}
	ahead := time.Until(time.Unix(seconds, 0))
	if !f.known || ahead > f.ahead {
		f.ahead, f.known = ahead, true
	}
	return f.ahead-ahead > signatureFresh
}

// forwardPause is what Retry-After asks for in seconds, else doubles from 1 s.
func forwardPause(n int, answer *http.Response) time.Duration {
	if answer != nil {
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds >= 0 {
			return time.Duration(seconds) * time.Second
		}
	}
	return min(time.Second<<min(n-1, 10), forwardPauseMax)
}
