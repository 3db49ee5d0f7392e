package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/config"
	"postroad/internal/postgres"
)

// Config says what to run.
type Config struct {
	// Command is the product's program with whatever comes before its
	// arguments. Required.
	Command []string
	// Env is the environment of the processes started.
	Env []string
	// Dir holds the data while it runs, in a directory of its own that is
	// removed; "": the system's place for such.
	Dir string
	// Scenarios are the names of those to run; none: all.
	Scenarios []string
	// Quick runs smaller ones: for correctness, not for figures.
	Quick bool
	// Events is how many a scenario delivers; default: as it declares.
	Events int
	// Delay is how long the consumer takes for an answer where it takes its time;
	// default 40 ms.
	Delay time.Duration
	// Progress is told what is done, a line at a time; nil: nobody.
	Progress io.Writer

	// StartMax bounds the product's start, StopMax its stop. Default 2 min and
	// 45 s.
	StartMax, StopMax time.Duration
	// StallMax is how long no event may arrive before the run has failed.
	// Default 60 s.
	StallMax time.Duration
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Delay, 40 * time.Millisecond}, {&c.StartMax, 2 * time.Minute}, {&c.StopMax, 45 * time.Second}, {&c.StallMax, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case len(c.Command) == 0:
		return errors.New("bench: Command is required")
	case c.Events < 0:
		return errors.New("bench: Events must not be below 0")
	case c.Delay < 0:
		return errors.New("bench: Delay must not be below 0")
	}
	return nil
}

// Report is what a run found.
type Report struct {
	// Quick says that the run was too short for its figures to be quoted.
	Quick   bool     `json:"quick,omitempty"`
	Results []Result `json:"results"`
}

// Failed reports that an event was lost, repeated or out of order somewhere.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.Results, func(one Result) bool { return len(one.Faults) > 0 })
}

// run is a product and a receiver that run.
type run struct {
	cfg      Config
	product  *process
	receiver *process
	api      *apiclient.Client
	sink     *apiclient.Client
}

// Run measures one scenario after the other, against one product. An error means
// that there is no result; a result with Faults means that the product failed.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	cfg = cfg.WithDefaults()
	if err := cfg.validate(); err != nil {
		return Report{}, err
	}
	scenarios, err := choose(cfg.Scenarios)
	if err != nil {
		return Report{}, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "postroad-bench-")
	if err != nil {
		return Report{}, fmt.Errorf("make a data directory: %w", err)
	}
	r := &run{cfg: cfg}
	defer func() { err = errors.Join(err, r.stop(dir)) }()
	if err := r.start(ctx, dir); err != nil {
		return Report{}, err
	}
	report = Report{Quick: cfg.Quick}
	for _, s := range scenarios {
		result, err := r.scenario(ctx, s)
		if err != nil {
			return Report{}, err
		}
		report.Results = append(report.Results, result)
	}
	return report, nil
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.cfg.Progress, format+"\n", args...) }

func (r *run) start(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StartMax, fmt.Errorf("not ready within %s", r.cfg.StartMax))
	defer cancel()
	var err error
	if r.receiver, err = startProcess("the receiver", r.cfg.Command, []string{"bench-receiver"}, r.cfg.Env); err != nil {
		return err
	}
	address, err := r.receiver.firstLine(ctx)
	if err != nil {
		return err
	}
	r.sink = &apiclient.Client{URL: "http://" + address}
	r.say("starting PostgreSQL, Temporal and Postroad")
	started := time.Now()
	r.product, err = startProcess("postroad dev", r.cfg.Command, []string{
		"dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--temporal-listen", "127.0.0.1:0", "--ui-listen", "127.0.0.1:0",
		"--log-level", "warn",
	}, r.cfg.Env)
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, r.product.out) }()
	if err := r.awaitReady(ctx, dir); err != nil {
		return fmt.Errorf("start the product: %w", err)
	}
	r.say("ready after %.1f s", time.Since(started).Seconds())
	return nil
}

// awaitReady waits until the product serves and says so.
func (r *run) awaitReady(ctx context.Context, dir string) error {
	for {
		target, err := config.Search{DataDir: dir}.Find(ctx)
		if err == nil {
			r.api = &apiclient.Client{URL: target.URL, Token: target.Token}
			if _, err = r.api.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: "/readyz"}, nil); err == nil {
				return nil
			}
		}
		if waitErr := r.pause(ctx, 50*time.Millisecond); waitErr != nil {
			return errors.Join(waitErr, err)
		}
	}
}

// pause waits, unless the product dies meanwhile.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.product.done:
		return r.product.died()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends both processes, the product first, and removes the data.
func (r *run) stop(dir string) error {
	var errs []error
	if r.product != nil {
		errs = append(errs, r.product.stop(r.cfg.StopMax))
	}
	if r.receiver != nil {
		errs = append(errs, r.receiver.stop(5*time.Second))
	}
	return errors.Join(append(errs, removeData(dir))...)
}

// removeData removes the data directory, and the database where that had to lie
// elsewhere.
func removeData(dir string) error {
	if err := postgres.Remove(filepath.Join(dir, "postgres")); err != nil {
		return fmt.Errorf("remove the database: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the data directory: %w", err)
	}
	return nil
}

// book reads a book of the receiver.
func book[T any](ctx context.Context, r *run, path string) (report T, err error) {
	answer, err := r.sink.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path}, nil)
	if err == nil {
		err = json.Unmarshal(answer.Body, &report)
	}
	if err != nil {
		return report, fmt.Errorf("read the receiver's book: %w", err)
	}
	return report, nil
}
