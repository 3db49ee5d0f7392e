// Command replicate keeps a copy of a feed in a file, by OData (RESO RCP-27), with
// nothing but the standard library:
//
//	POSTROAD_TOKEN=pr_... go run ./examples/replicate -from http://127.0.0.1:8080/odata/default/ -to copy.ndjson
//
// The file has an event a line, in order. The last line is the position: so the
// events and the position are saved together, and whenever the program is
// killed, the next run goes on without a gap and without a repeat. It works with
// any server that has an EntityEvent resource and hands sequences out in the order
// of its commits.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	from := flag.String("from", "http://127.0.0.1:8080/odata/default/", "the `URL` of the OData service")
	to := flag.String("to", "copy.ndjson", "the `file` to write to")
	every := flag.Duration("every", 5*time.Second, "how long to wait once all is there; 0 ends the program then")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r := replica{root: strings.TrimSuffix(*from, "/") + "/", token: os.Getenv("POSTROAD_TOKEN")}
	err := r.run(ctx, *to, *every)
	stopped := ctx.Err() != nil
	stop()
	if err != nil && !stopped {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// replica is a copy of a feed.
type replica struct {
	root, token string
	file        *os.File
	position    int64 // the sequence of the last event in the file
}

func (r *replica) run(ctx context.Context, name string, every time.Duration) (err error) {
	if r.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.file.Close()) }()
	if err := r.resume(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for {
		before := r.position
		err := r.catchUp(ctx)
		if r.position != before {
			slog.Info("copied", "position", r.position, "file", name)
		}
		switch {
		case every == 0 || err != nil && !errors.As(err, new(*temporaryError)):
			return err
		case err != nil:
			slog.Warn("not copied", "error", err, "again_in", every)
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resume finds the position: the last whole line. What a crash left of another one
// is cut off.
func (r *replica) resume() error {
	text, err := io.ReadAll(r.file) // a copy that is too large for this keeps its position apart
	if err != nil {
		return err
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	if err := r.file.Truncate(int64(end)); err != nil {
		return err
	}
	if _, err := r.file.Seek(int64(end), io.SeekStart); err != nil || end == 0 {
		return err
	}
	start := bytes.LastIndexByte(text[:end-1], '\n') + 1
	r.position, err = sequence(text[start:end])
	return err
}

// catchUp asks for what is above the position and follows the links to the end.
func (r *replica) catchUp(ctx context.Context) error {
	query := url.Values{
		"$filter":  {"EntityEventSequence gt " + strconv.FormatInt(r.position, 10)},
		"$orderby": {"EntityEventSequence"},
	}
	next := r.root + "EntityEvent?" + strings.ReplaceAll(query.Encode(), "+", "%20")
	for next != "" {
		page, err := r.get(ctx, next)
		if err != nil {
			return err
		}
		if err := r.save(page.Value); err != nil {
			return err
		}
		if next, err = resolve(next, page.NextLink); err != nil {
			return err
		}
	}
	return nil
}

// page is a part of the answer; NextLink leads to the next one, and is absent from
// the last.
type page struct {
	Value    []json.RawMessage `json:"value"`
	NextLink string            `json:"@odata.nextLink"`
}

var client = http.Client{Timeout: time.Minute}

func (r *replica) get(ctx context.Context, address string) (p page, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return p, err
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("OData-MaxVersion", "4.01")
	request.Header.Set("Prefer", "odata.maxpagesize=1000")
	answer, err := client.Do(request)
	if err != nil {
		return p, &temporaryError{err}
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 2000))
		err := fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(text))
		if answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests {
			return p, &temporaryError{err}
		}
		return p, err // 410, say: events above the position were removed
	}
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil {
		return p, &temporaryError{fmt.Errorf("read page: %w", err)}
	}
	return p, nil
}

// temporaryError may be gone at the next attempt.
type temporaryError struct{ error }

// save appends events, and returns once they are on the disk.
func (r *replica) save(events []json.RawMessage) error {
	var lines bytes.Buffer
	position := r.position
	for _, e := range events {
		n, err := sequence(e)
		if err != nil {
			return err
		}
		if n <= position {
			return fmt.Errorf("event %d came after event %d", n, position)
		}
		position = n
		if err := json.Compact(&lines, e); err != nil {
			return err
		}
		lines.WriteByte('\n')
	}
	if _, err := lines.WriteTo(r.file); err != nil {
		return err
	}
	if err := r.file.Sync(); err != nil {
		return err
	}
	r.position = position
	return nil
}

// sequence of an event; some servers write it as a string (IEEE754Compatible).
func sequence(e []byte) (int64, error) {
	var event struct {
		Sequence json.RawMessage `json:"EntityEventSequence"`
	}
	if err := json.Unmarshal(e, &event); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.Trim(string(event.Sequence), `"`), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read EntityEventSequence: %w", err)
	}
	return n, nil
}

// resolve makes an address of a link, which may be relative. The token goes to the
// server it is for, and to no other.
func resolve(base, link string) (string, error) {
	if link == "" {
		return "", nil
	}
	from, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	to, err := from.Parse(link)
	if err != nil {
		return "", err
	}
	if to.Host != from.Host || to.Scheme != from.Scheme {
		return "", fmt.Errorf("the next page is said to be at another server, %s", to.Host)
	}
	return to.String(), nil
}
