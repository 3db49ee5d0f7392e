package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"postroad/internal/apiclient"
)

// publishResult is the answer to a publication.
type publishResult struct {
	FirstSequence int64 `json:"firstSequence"`
	LastSequence  int64 `json:"lastSequence"`
	Accepted      int64 `json:"accepted"`
	Duplicates    int64 `json:"duplicates"`
}

func (p *program) publishCommand() *cobra.Command {
	var feed, key string
	command := &cobra.Command{
		Use:   "publish FILE|-",
		Short: "Publish events from a file or standard input",
		Long: `Publish events from a file or, with -, from standard input.

The input is NDJSON, one event a line, of any length: it is streamed, and the
lines before a bad one stay published. An input that begins with [, or a file
whose name ends in .json, is sent as one JSON document: an array is published
as a whole or not at all.`,
		Example: `  postroad publish events.ndjson
  echo '{"resourceName":"Property","resourceRecordKey":"235021","eventType":"Updated"}' | postroad publish -`,
		Args: cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			return p.publish(ctx, args[0], feed, key)
		}),
	}
	command.Flags().StringVar(&feed, "feed", "default", "the `feed` to publish to")
	command.Flags().StringVar(&key, "idempotency-key", "", "makes publishing the same input again a repeat: event i gets the `key` KEY/i")
	return command
}

func (p *program) publish(ctx context.Context, name, feed, key string) error {
	c, err := p.client(ctx)
	if err != nil {
		return err
	}
	input, size, closeInput, err := p.openInput(name)
	if err != nil {
		return err
	}
	defer closeInput()
	body, contentType, err := sniff(name, input)
	if err != nil {
		return err
	}
	bar := p.progressBar(size)
	request := apiclient.Request{
		Method: http.MethodPost, Path: feedPath(feed) + "/events",
		Body: io.TeeReader(body, bar), ContentType: contentType, Header: http.Header{},
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", strconv.Quote(key))
	}
	started := time.Now()
	var result publishResult
	answer, err := c.Do(ctx, request, &result)
	_ = bar.Close()
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(answer.Body)
	}
	p.printf("%s\n", publishedText(result, feed, time.Since(started)))
	return nil
}

func publishedText(r publishResult, feed string, took time.Duration) string {
	var b strings.Builder
	if r.Accepted == 0 {
		fmt.Fprintf(&b, "nothing new in feed %s: all %s had been published before", feed, count(r.Duplicates, "event"))
		return b.String()
	}
	fmt.Fprintf(&b, "published %s to feed %s in %.1f s: sequences %s", count(r.Accepted, "event"), feed, took.Seconds(), decimal(r.FirstSequence))
	if r.LastSequence != r.FirstSequence {
		fmt.Fprintf(&b, " to %s", decimal(r.LastSequence))
	}
	if r.Duplicates > 0 {
		fmt.Fprintf(&b, "; %s had been published before", count(r.Duplicates, "event"))
	}
	return b.String()
}

// openInput opens a file or standard input; size is -1 where it is not known.
func (p *program) openInput(name string) (input io.Reader, size int64, closeInput func(), err error) {
	if name == "-" {
		return p.stdin, -1, func() {}, nil
	}
	path, err := p.path(name)
	if err != nil {
		return nil, 0, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("open input: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, nil, errors.Join(fmt.Errorf("open input: %w", err), f.Close())
	}
	size = -1
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, size, func() { _ = f.Close() }, nil
}

// path makes a file's name absolute.
func (p *program) path(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	dir, err := p.dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// sniff tells a JSON document from NDJSON.
func sniff(name string, input io.Reader) (io.Reader, string, error) {
	const ndjson, document = "application/x-ndjson", "application/json"
	buffered := bufio.NewReaderSize(input, 64<<10)
	if strings.HasSuffix(name, ".json") {
		return buffered, document, nil
	}
	for {
		c, err := buffered.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil, "", usagef("%s is empty: there is nothing to publish", name)
		case err != nil:
			return nil, "", fmt.Errorf("read input: %w", err)
		case bytes.IndexByte([]byte(" \t\r\n"), c) >= 0:
			continue
		}
		if err := buffered.UnreadByte(); err != nil {
			return nil, "", fmt.Errorf("read input: %w", err)
		}
		if c == '[' {
			return buffered, document, nil
		}
		return buffered, ndjson, nil
	}
}

// progressBar counts the bytes sent, on a terminal only.
func (p *program) progressBar(size int64) io.WriteCloser {
	screen, ok := terminal(p.stderr)
	if !ok || p.json {
		return silentBar{io.Discard}
	}
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(screen),
		progressbar.OptionSetDescription("publishing"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
	)
}

type silentBar struct{ io.Writer }

// Close implements io.Closer.
func (silentBar) Close() error { return nil }
