package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"postroad/embedded"
	"postroad/internal/apiclient"
	"postroad/internal/config"
)

// demoEvents are real: each is a change to a file of the RESO Transport
// standards, from the first commit of its repository on.
//
//go:embed demo/events.ndjson
var demoEvents []byte

const (
	demoID = "demo"
	// demoMax bounds publishing and delivering. The waits take 6 s of it; after a
	// kill it may take most of a minute until deliveries go on.
	demoMax = 2 * time.Minute
)

// demoFlags are the demo's flags.
type demoFlags struct {
	keep, exit bool
	dataDir    string
}

func (p *program) demoCommand() *cobra.Command {
	f := &demoFlags{}
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show Postroad at work: real events, a consumer that objects twice and checks itself",
		Long: `Start everything on free ports, publish real events and deliver them in order to
a sample consumer, which answers 429 once and 500 once and checks itself.

On a terminal it then stays up until Ctrl-C, so that you can pause, resume and
kill it; else it ends, with exit code 1 if the consumer's log disagrees. What it
stores is removed at the end; a demo that was killed is taken up by the next.`,
		Args: cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error { return p.demo(ctx, f) }),
	}
	command.Flags().BoolVar(&f.keep, "keep", false, "keep the data directory for the next demo")
	command.Flags().BoolVar(&f.exit, "exit", false, "end when done, on a terminal too")
	command.Flags().StringVar(&f.dataDir, "data-dir", filepath.Join(".postroad", "demo"), "the `directory` that holds everything")
	return command
}

// demo is one demonstration.
type demo struct {
	p        *program
	flags    *demoFlags
	dir      string // absolute
	began    time.Time
	total    int64
	again    bool // it takes up what another left
	stack    *stack
	consumer *demoConsumer
	api      *apiclient.Client
}

func (p *program) demo(ctx context.Context, f *demoFlags) (err error) {
	if p.json {
		return usagef("demo writes text for people: it has no --json")
	}
	d := &demo{p: p, flags: f, began: time.Now(), total: int64(countLines(demoEvents))}
	if d.dir, err = p.path(f.dataDir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	logFile, err := os.OpenFile(filepath.Join(d.dir, "postroad.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer logFile.Close()
	if err := d.start(ctx, slog.New(slog.NewTextHandler(logFile, nil))); err != nil {
		if !d.again {
			// Nothing of worth is in it; one in use is locked against us.
			_ = d.remove()
		}
		return err
	}
	failed := d.play(ctx)
	if ctx.Err() != nil {
		failed = nil // Ctrl-C is the end, not a failure
	}
	return errors.Join(failed, d.end(ctx))
}

func countLines(text []byte) (n int) {
	for _, c := range text {
		if c == '\n' {
			n++
		}
	}
	return n
}

// say prints a step with the seconds since the beginning.
func (d *demo) say(format string, args ...any) {
	d.p.printf("%6.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// more prints a line that belongs to the step before it.
func (d *demo) more(format string, args ...any) {
	d.p.printf("          %s\n", fmt.Sprintf(format, args...))
}

func (d *demo) start(ctx context.Context, logger *slog.Logger) error {
	_, err := os.Stat(config.KeyFile(d.dir))
	d.again = err == nil
	if d.again {
		d.say("take up the demo that was left in %s", d.flags.dataDir)
	}
	d.say("start PostgreSQL, Temporal, API and worker in one process (data in %s)", d.flags.dataDir)
	d.stack, err = startStack(ctx, stackConfig{
		dataDir: d.dir, listen: "127.0.0.1:0", temporalListen: "127.0.0.1:0", uiListen: "127.0.0.1:0",
		keyFile: config.KeyFile(d.dir), logger: logger,
	})
	if err != nil {
		if errors.Is(err, embedded.ErrSlim) {
			return fmt.Errorf("%w: the demo needs a build without the tag slim", err)
		}
		return err
	}
	d.say("ready: API %s, Temporal UI %s", d.stack.http.url(), d.stack.embedded.UIURL)
	d.api = &apiclient.Client{URL: d.stack.http.url(), Token: d.stack.token, UserAgent: "postroad-demo/" + version()}
	if d.consumer, err = openDemoConsumer(ctx, d.dir); err != nil {
		return errors.Join(err, d.end(ctx))
	}
	return nil
}

// play does what there is to see.
func (d *demo) play(ctx context.Context) error {
	showing, cancel := context.WithTimeoutCause(ctx, demoMax, fmt.Errorf("not done within %s", demoMax))
	defer cancel()
	if err := d.subscribe(showing); err != nil {
		return err
	}
	if err := d.publish(showing); err != nil {
		return err
	}
	if err := d.watch(showing); err != nil {
		return err
	}
	if err := d.verdict(); err != nil {
		return err
	}
	if _, ok := terminal(d.p.stdout); d.flags.exit || !ok {
		return nil
	}
	d.next(ctx)
	return d.stay(ctx)
}

func (d *demo) subscribe(ctx context.Context) error {
	_, err := d.api.Do(ctx, apiclient.Request{Method: "PUT", Path: subscriberPath(demoID, ""), In: map[string]any{
		"endpoint": map[string]any{"url": d.consumer.url()}, "start": "beginning", "label": "Postroad demo",
		"signing": map[string]any{"secret": d.consumer.secret}, "retry": map[string]any{"schedule": []string{"1s", "5s", "30s"}},
		"description": "the demo's own consumer",
	}}, nil)
	if err != nil {
		return fmt.Errorf("create the subscriber: %w", err)
	}
	d.say("subscriber %q: one event a request, in order, signed, to %s", demoID, d.consumer.url())
	return nil
}

func (d *demo) publish(ctx context.Context) error {
	r, err := publishDemo(ctx, d.api)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if r.Accepted == 0 {
		d.say("publish the same %s: all there before, none stored twice", count(r.Duplicates, "event"))
		return nil
	}
	d.say("publish %s: the history of the RESO Transport standards", count(r.Accepted, "real event"))
	return nil
}

// end stops everything and, unless it is to be kept, removes it.
func (d *demo) end(ctx context.Context) error {
	if d.consumer != nil {
		defer d.consumer.close(ctx)
	}
	if d.stack != nil {
		d.say("stop: what is in flight is finished and recorded")
		if err := stopWithin(ctx, d.p.force, stopMax, d.stack.stop); err != nil {
			return err
		}
	}
	if d.flags.keep {
		d.say("stopped; %s is kept", d.flags.dataDir)
		return nil
	}
	if err := d.remove(); err != nil {
		return err
	}
	d.say("stopped and removed")
	return nil
}

func (d *demo) remove() error {
	if err := embedded.Remove(d.dir); err != nil {
		return fmt.Errorf("remove the demo's data: %w", err)
	}
	if filepath.Base(filepath.Dir(d.dir)) == ".postroad" {
		_ = os.Remove(filepath.Dir(d.dir)) // only if it is empty
	}
	return nil
}
