package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/config"
)

// statusEvery is how often the demo asks how its subscriber fares while it
// stays up.
const statusEvery = 250 * time.Millisecond

// publishDemo publishes the demo's events: as often as it likes, because each
// has an idempotency key.
func publishDemo(ctx context.Context, c *apiclient.Client) (publishResult, error) {
	var r publishResult
	_, err := c.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: feedPath("default") + "/events", Body: bytes.NewReader(demoEvents),
		ContentType: "application/x-ndjson", Header: http.Header{"Idempotency-Key": {`"demo"`}},
	}, &r)
	return r, err
}

// watch prints what the consumer sees until all events have arrived.
func (d *demo) watch(ctx context.Context) error {
	seen, reported := d.consumer.loaded, d.consumer.position()
	if seen > 0 {
		d.say("the consumer's log ends with event %d", reported)
		if err := d.sayStatus(ctx, ""); err != nil {
			return err
		}
	}
	for {
		for _, a := range d.consumer.since(seen) {
			seen++
			switch {
			case a.RetryAfter > 0:
				if err := d.watchWait(ctx, a, seen, reported); err != nil {
					return err
				}
				reported = a.Sequence - 1
			case a.Status == http.StatusInternalServerError:
				d.say("%s delivered; the consumer answers event %d with 500", span(reported, a.Sequence-1), a.Sequence)
				if err := d.sayStatus(ctx, "retrying"); err != nil {
					return err
				}
				reported = a.Sequence - 1
			}
		}
		if at := d.consumer.position(); at >= d.total {
			if reported < at {
				d.say("%s delivered", span(reported, at))
			}
			return d.idle(ctx)
		}
		select {
		case <-d.consumer.arrived:
		case <-ctx.Done():
			return d.unfinished(ctx)
		}
	}
}

// span names the events after one through another.
func span(after, through int64) string {
	if through-after == 1 {
		return "event " + decimal(through)
	}
	return fmt.Sprintf("events %d to %d", after+1, through)
}

// watchWait counts down the wait that an answer asked for.
func (d *demo) watchWait(ctx context.Context, a arrival, seen int, reported int64) error {
	d.say("%s delivered; the consumer answers event %d with 429, Retry-After: %d", span(reported, a.Sequence-1), a.Sequence, a.RetryAfter)
	if err := d.sayStatus(ctx, "waiting"); err != nil {
		return err
	}
	d.p.printf("          ")
	until := a.Answered.Add(time.Duration(a.RetryAfter) * time.Second)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if left := time.Until(until); left > 0 {
			d.p.printf("%d ", int((left+time.Second-1)/time.Second))
		}
		select {
		case <-ticker.C:
			continue
		case <-d.consumer.arrived:
		case <-ctx.Done():
			d.p.printf("\n")
			return d.unfinished(ctx)
		}
		if next := d.consumer.since(seen); len(next) > 0 {
			d.p.printf("\n")
			d.say("event %d again, %.1f s after the 429: taken", next[0].Sequence, next[0].At.Sub(a.Answered).Seconds())
			return nil
		}
	}
}

// sayStatus prints what the status says, once it is the state named; "": any.
func (d *demo) sayStatus(ctx context.Context, state string) error {
	for deadline := time.Now().Add(time.Second); ; {
		s, err := getStatus(ctx, d.api, demoID)
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		if state == "" || s.State == state || time.Now().After(deadline) {
			d.more("status: %s: %s", s.State, printable(s.Reason))
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// idle waits until Postroad too knows that all is delivered.
func (d *demo) idle(ctx context.Context) error {
	for {
		s, err := getStatus(ctx, d.api, demoID)
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		if s.State == "idle" {
			d.more("status: %s: %s", s.State, printable(s.Reason))
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return d.unfinished(ctx)
		}
	}
}

// unfinished says how far it came.
func (d *demo) unfinished(ctx context.Context) error {
	err := context.Cause(ctx)
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s, statusErr := getStatus(asking, d.api, demoID); statusErr == nil {
		err = fmt.Errorf("%w: %d of %d delivered; status: %s: %s", err, d.consumer.position(), d.total, s.State, s.Reason)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// next says what to try, in commands that work from another terminal.
func (d *demo) next(ctx context.Context) {
	self := d.p.self()
	link := d.stack.embedded.UIURL
	if s, err := getStatus(ctx, d.api, demoID); err == nil && s.TemporalURL != "" {
		link = s.TemporalURL
	}
	tokenFile := filepath.Join(d.flags.dataDir, filepath.Base(config.TokenFile(d.dir)))
	addressFile := filepath.Join(d.flags.dataDir, filepath.Base(config.AddressFile(d.dir)))
	d.p.printf("It stays up until Ctrl-C. Try, in another terminal in this directory:\n")
	for _, line := range []string{
		self + " status",
		self + " subscriber pause demo --reason 'see what happens'",
		`for k in 1 2 3; do echo '{"resourceName":"Property","resourceRecordKey":"'$k'"}'; done | ` + self + " publish -",
		self + " subscriber resume demo",
		self + " attempts demo --failures",
		fmt.Sprintf(`curl -H "Authorization: Bearer $(cat %s)" "$(cat %s)/v1/subscribers/demo/status"`, tokenFile, addressFile),
		fmt.Sprintf("kill -9 %d && %s demo    # takes up where it was killed", os.Getpid(), self),
	} {
		d.p.printf("  %s\n", line)
	}
	d.p.printf("In the browser:\n  %s   the subscriber's workflow\n  %s/docs   the API\n\n", link, d.stack.http.url())
}

// self is how this program was called.
func (p *program) self() string {
	executable, err := os.Executable()
	switch {
	case err != nil:
		return "postroad"
	case strings.Contains(executable, string(filepath.Separator)+"go-build"):
		return "go run ./cmd/postroad" // its binary is gone when it ends
	}
	dir, err := p.dir()
	if err != nil {
		return executable
	}
	if near, err := filepath.Rel(dir, executable); err == nil && !strings.HasPrefix(near, "..") {
		return "./" + near
	}
	return executable
}

// stay prints what changes until ctx ends.
func (d *demo) stay(ctx context.Context) error {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	at, last := d.consumer.position(), statusDocument{State: "idle"}
	for {
		select {
		case <-ctx.Done():
			d.p.printf("\n")
			return nil
		case err := <-d.stack.failures():
			return err
		case <-ticker.C:
		}
		// Sending and having sent are one to the reader.
		quiet := func(state string) bool { return state == "idle" || state == "active" }
		if s, err := getStatus(ctx, d.api, demoID); err == nil {
			if s.State != last.State && (!quiet(s.State) || !quiet(last.State)) {
				d.say("status: %s: %s", s.State, printable(s.Reason))
			}
			last = s
		}
		if now := d.consumer.position(); now > at {
			d.say("%s delivered", span(at, now))
			at = now
		}
	}
}
