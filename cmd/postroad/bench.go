package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"postroad/bench"
)

// quickEvents is enough to see that the benchmark works, and too few for a
// figure to be quoted.
const quickEvents = 10_000

func (p *program) benchCommand() *cobra.Command {
	var cfg bench.Config
	var quick bool
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure delivery against the floor of this machine",
		Long: `Measure how fast one ordered subscriber is delivered to, against the floor: one
loop of net/http posting the same bodies over one connection, measured in the
same minutes. It starts Postroad and a receiver as processes of their own, and
fails if an event is lost, repeated or out of order. It judges no figure.`,
		Args: cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			if quick && cfg.Events == 0 {
				cfg.Events = quickEvents
			}
			return p.bench(ctx, cfg)
		}),
	}
	command.Flags().BoolVar(&quick, "quick", false, "a small run of less than a minute")
	command.Flags().IntVar(&cfg.Events, "events", 0, "how many `events` to deliver (default 200,000, or 10,000 with --quick)")
	command.Flags().StringVar(&cfg.Dir, "dir", "", "`directory` for the data while it runs (default: the system's place for temporary files)")
	return command
}

func (p *program) bench(ctx context.Context, cfg bench.Config) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg.Command, cfg.Env, cfg.Progress = []string{executable}, p.env.WithoutOurs().Environ(), p.stderr
	if p.json {
		cfg.Progress = io.Discard
	}
	report, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if p.json {
		err = p.encode(report)
	} else {
		err = report.WriteTable(p.stdout)
	}
	if err == nil && len(report.Faults) > 0 {
		err = silentError{exitError} // the report names them
	}
	return err
}

func (p *program) benchReceiverCommand() *cobra.Command {
	var listen string
	command := &cobra.Command{
		Use:    "bench-receiver",
		Short:  "The consumer of the benchmark",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			return bench.ServeReceiver(ctx, listen, p.stdout)
		}),
	}
	command.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`address` to listen on; the one taken is printed")
	return command
}
