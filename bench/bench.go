package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
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
	// Runs is how often all of it is run; default 1.
	Runs int
	// ProfileDir is where CPU profiles of the product are written, one for each
	// scenario's measured stretch; "": none are taken.
	ProfileDir string
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
	if c.Runs == 0 {
		c.Runs = 1
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
	case c.Runs < 0:
		return errors.New("bench: Runs must not be below 0")
	case c.Delay < 0:
		return errors.New("bench: Delay must not be below 0")
	}
	return nil
}

// Run measures one scenario after the other. An error means that there is no
// report; a result with Faults means that the product failed.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	cfg = cfg.WithDefaults()
	if err := cfg.validate(); err != nil {
		return Report{}, err
	}
	scenarios, err := choose(cfg.Scenarios)
	if err != nil {
		return Report{}, err
	}
	if cfg.ProfileDir != "" {
		if err := os.MkdirAll(cfg.ProfileDir, 0o755); err != nil {
			return Report{}, fmt.Errorf("make the directory for profiles: %w", err)
		}
	}
	dir, err := os.MkdirTemp(cfg.Dir, "postroad-bench-")
	if err != nil {
		return Report{}, fmt.Errorf("make a data directory: %w", err)
	}
	s := &stage{cfg: cfg, dir: dir}
	defer func() { err = errors.Join(err, s.stop(ctx)) }()
	if err := s.start(ctx); err != nil {
		return Report{}, err
	}
	runs := make([][]Result, cfg.Runs)
	for i := range runs {
		if runs[i], err = s.run(ctx, scenarios); err != nil {
			return Report{}, err
		}
	}
	return newReport(cfg.Quick, runs), nil
}

// run measures the scenarios once, each with a product of its own, so that none
// finds what another one left. In a quick run they share one.
func (s *stage) run(ctx context.Context, scenarios []Scenario) (results []Result, err error) {
	r := &run{stage: s}
	defer func() { err = errors.Join(err, r.stopProduct(ctx)) }()
	for _, scenario := range scenarios {
		if !s.cfg.Quick {
			if err := r.stopProduct(ctx); err != nil {
				return nil, err
			}
		}
		if r.product == nil {
			if err := r.startProduct(ctx); err != nil {
				return nil, err
			}
		}
		result, err := r.scenario(ctx, scenario)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}
