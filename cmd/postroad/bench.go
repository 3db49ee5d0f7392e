package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"postroad/bench"
)

func (p *program) benchCommand() *cobra.Command {
	var cfg bench.Config
	var list bool
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure Postroad against the floor of this machine",
		Long: `Measure how fast Postroad takes events in and delivers them, each scenario against
a floor that is measured in the same minutes: what a bare client does on this
machine. It starts PostgreSQL, Postroad and a receiver as processes of their own.

The table shows each figure with its floor, their ratio, and the goals for it; then
CPU time and memory by process, and what PostgreSQL and Temporal did per delivery.
It fails if an event is lost, repeated or out of order, and does not fail where a
goal is missed. --json writes the same as one document, with each run of --runs.
--list names the scenarios and their goals.`,
		Args: cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			if list {
				return p.listScenarios()
			}
			return p.bench(ctx, cfg)
		}),
	}
	flags := command.Flags()
	flags.BoolVar(&list, "list", false, "list the scenarios and what they measure, run none")
	flags.StringSliceVar(&cfg.Scenarios, "scenario", nil, "run this scenario `only`; repeat it for more (default: all)")
	flags.BoolVar(&cfg.Quick, "quick", false, "smaller runs, for correctness: no verdict on their figures")
	flags.IntVar(&cfg.Events, "events", 0, "how many `events` each scenario delivers (default: as --list shows)")
	flags.IntVar(&cfg.Runs, "runs", 1, "how many `times` all is run; the table then shows medians")
	flags.StringVar(&cfg.ProfileDir, "profile", "", "`directory` to write CPU profiles of Postroad to, one for each scenario")
	flags.DurationVar(&cfg.Delay, "delay", 40*time.Millisecond, "how long a consumer that takes its time takes for an answer, a `duration`")
	flags.StringVar(&cfg.Dir, "dir", "", "`directory` for the data while it runs (default: the system's place for temporary files)")
	return command
}

func (p *program) listScenarios() error {
	scenarios := bench.Scenarios()
	if p.json {
		return p.encode(scenarios)
	}
	t := tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "SCENARIO\tEVENTS\tQUICK\tWHAT\tFLOOR\tGOALS\n")
	for _, s := range scenarios {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\n", s.Name, s.Events, s.QuickEvents, s.What, s.Floor, s.GoalsText())
	}
	return t.Flush()
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
	if err == nil && report.Failed() {
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

func (p *program) benchNaiveCommand() *cobra.Command {
	var cfg bench.NaiveConfig
	command := &cobra.Command{
		Use:    "bench-naive",
		Short:  "A worker of the design that the benchmark sets Postroad against",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   p.action(func(ctx context.Context, _ []string) error { return bench.ServeNaive(ctx, cfg, p.stdout) }),
	}
	flags := command.Flags()
	flags.StringVar(&cfg.Temporal, "temporal", "", "`address` of Temporal's frontend")
	flags.StringVar(&cfg.Namespace, "namespace", "", "`name` of the namespace")
	flags.StringVar(&cfg.Database, "database", "", "`URL` of Postroad's database")
	flags.StringVar(&cfg.Endpoint, "endpoint", "", "`URL` that the number of a subscriber is appended to")
	return command
}
