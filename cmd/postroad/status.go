package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"postroad/event"
	"postroad/internal/apiclient"
)

// statusDocument is what the commands read of a status.
type statusDocument struct {
	Subscriber      string     `json:"subscriber"`
	Feed            string     `json:"feed"`
	State           string     `json:"state"`
	Reason          string     `json:"reason"`
	Cursor          int64      `json:"cursor"`
	Head            int64      `json:"head"`
	LagEvents       int64      `json:"lagEvents"`
	LagSeconds      float64    `json:"lagSeconds"`
	RetryAt         *time.Time `json:"retryAt"`
	Attempt         int        `json:"attempt"`
	LastError       string     `json:"lastError"`
	LastDeliveredAt *time.Time `json:"lastDeliveredAt"`
	InFlight        int        `json:"inFlight"`
	HeldKeys        int64      `json:"heldKeys"`
	DeadLetters     int64      `json:"deadLetters"`
	// Replay is the first that is not finished; not all of its members are there.
	Replay  *replayDocument `json:"replay"`
	Learned struct {
		BatchSize int64 `json:"batchSize"`
		Lanes     int64 `json:"lanes"`
	} `json:"learned"`
	PausedUntil    *time.Time `json:"pausedUntil"`
	DesiredVersion int64      `json:"desiredVersion"`
	AppliedVersion int64      `json:"appliedVersion"`
	WorkflowID     string     `json:"workflowId"`
	TemporalURL    string     `json:"temporalUrl"`
	Retention      struct {
		RemovedFrom *time.Time `json:"removedFrom"`
		LostEvents  int64      `json:"lostEvents"`
		LostThrough int64      `json:"lostThrough"`
	} `json:"retention"`

	raw json.RawMessage
}

// statusCallsMax is how many statuses are asked for at once.
const statusCallsMax = 8

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [ID]",
		Short: "Show how subscribers fare: all of them, or one in detail",
		Args:  cobra.MaximumNArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return p.statusOf(ctx, c, args[0])
			}
			return p.statusOverview(ctx, c)
		}),
	}
}

func getStatus(ctx context.Context, c *apiclient.Client, id string) (statusDocument, error) {
	var s statusDocument
	answer, err := c.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: subscriberPath(id, "/status")}, &s)
	if err != nil {
		return s, err
	}
	s.Subscriber, s.raw = id, answer.Body
	return s, nil
}

func (p *program) statusOf(ctx context.Context, c *apiclient.Client, id string) error {
	s, err := getStatus(ctx, c, id)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(s.raw)
	}
	t := p.table()
	t.row("subscriber", s.Subscriber)
	t.row("state", s.State)
	t.row("reason", s.Reason)
	t.row("cursor", fmt.Sprintf("%s of %s", decimal(s.Cursor), decimal(s.Head)))
	t.row("behind", behind(s))
	if s.Attempt > 0 {
		t.row("attempt", fmt.Sprint(s.Attempt))
	}
	if s.RetryAt != nil {
		t.row("next request", s.RetryAt.UTC().Format(time.RFC3339))
	}
	if s.PausedUntil != nil {
		t.row("paused until", s.PausedUntil.UTC().Format(time.RFC3339))
	}
	if s.LastError != "" {
		t.row("last error", s.LastError)
	}
	if s.LastDeliveredAt != nil {
		t.row("last delivered", s.LastDeliveredAt.UTC().Format(time.RFC3339))
	}
	setAsideRows(t, s)
	if from := s.Retention.RemovedFrom; from != nil {
		t.row("hard retention", "removes what it is owed from "+from.UTC().Format(time.RFC3339)+" on")
	}
	if lost := s.Retention.LostEvents; lost > 0 {
		t.row("lost", fmt.Sprintf("%s up to %s, removed before delivery", count(lost, "event"), decimal(s.Retention.LostThrough)))
	}
	if s.DesiredVersion != s.AppliedVersion {
		t.row("controls", fmt.Sprintf("%d accepted, %d in force", s.DesiredVersion, s.AppliedVersion))
	}
	t.row("workflow", s.WorkflowID)
	if s.TemporalURL != "" {
		t.row("in Temporal", s.TemporalURL)
	}
	return t.flush()
}

// setAsideRows say what waits apart from the events that are next.
func setAsideRows(t *table, s statusDocument) {
	if s.HeldKeys > 0 {
		t.row("held", count(s.HeldKeys, "key")+": see `postroad subscriber held "+s.Subscriber+"`")
	}
	if s.DeadLetters > 0 {
		t.row("given up", count(s.DeadLetters, "event")+": see `postroad subscriber dead-letters "+s.Subscriber+"`")
	}
	if s.Replay != nil {
		t.row("replay", decimal(s.Replay.ID)+": "+s.Replay.progress())
	}
	var learned []string
	if n := s.Learned.BatchSize; n > 0 {
		learned = append(learned, "batches of "+thousands(n))
	}
	if n := s.Learned.Lanes; n > 0 {
		learned = append(learned, count(n, "lane"))
	}
	if len(learned) > 0 {
		t.row("learned", strings.Join(learned, ", "))
	}
}

func behind(s statusDocument) string {
	if s.LagEvents == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s, %s", count(s.LagEvents, "event"), time.Duration(s.LagSeconds*float64(time.Second)).Round(time.Second))
}

func (p *program) statusOverview(ctx context.Context, c *apiclient.Client) error {
	all, err := statuses(ctx, c, nil)
	if err != nil {
		return err
	}
	if p.json {
		raw := make([]json.RawMessage, len(all))
		for i, s := range all {
			raw[i] = s.raw
		}
		return p.encode(map[string]any{"statuses": raw})
	}
	if len(all) == 0 {
		p.printf("no subscribers yet: create one with `postroad subscriber create`\n")
		return nil
	}
	t := p.table("SUBSCRIBER", "STATE", "CURSOR", "HEAD", "BEHIND", "HELD", "GIVEN UP", "DELIVERED", "REASON")
	for _, s := range all {
		delivered := "never"
		if s.LastDeliveredAt != nil {
			delivered = ago(time.Since(*s.LastDeliveredAt))
		}
		t.row(s.Subscriber, s.State, decimal(s.Cursor), decimal(s.Head), decimal(s.LagEvents), decimal(s.HeldKeys), decimal(s.DeadLetters), delivered, s.Reason)
	}
	return t.flush()
}

// statuses reads the statuses of the subscribers named, or of all.
func statuses(ctx context.Context, c *apiclient.Client, ids []string) ([]statusDocument, error) {
	named := len(ids) > 0
	if !named {
		list, _, err := listAll[event.Subscriber](ctx, c, "/v1/subscribers", "subscribers", nil)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			ids = append(ids, s.ID)
		}
	}
	all := make([]statusDocument, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statusCallsMax)
	for i, id := range ids {
		group.Go(func() error {
			s, err := getStatus(ctx, c, id)
			var problem *apiclient.Problem
			if !named && errors.As(err, &problem) && problem.Status == http.StatusNotFound {
				return nil // deleted since the list was read
			}
			all[i] = s
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s statusDocument) bool { return s.Subscriber == "" }), nil
}

// states are what a subscriber can be in.
var states = []string{"disabled", "halted", "paused", "waiting", "retrying", "active", "idle"}

// waitPollEvery is how often `wait` looks.
const waitPollEvery = 100 * time.Millisecond

func (p *program) waitCommand() *cobra.Command {
	var until string
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "wait [ID...]",
		Short: "Wait until subscribers, all or those named, are in a state",
		Long: `Wait until all subscribers, or those named, are in a state at once. Waiting for
another state ends with exit code 1 as soon as one of them is halted or
disabled, because only a person ends that, and when the timeout is over.`,
		RunE: p.action(func(ctx context.Context, args []string) error {
			if !slices.Contains(states, until) {
				return usagef("--until %q is no state: it is one of %s", until, strings.Join(states, ", "))
			}
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			return p.wait(ctx, c, args, until, timeout)
		}),
	}
	command.Flags().StringVar(&until, "until", "idle", "the `state` to wait for: "+strings.Join(states, ", "))
	command.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `duration`; 0 waits for ever")
	return command
}

func (p *program) wait(ctx context.Context, c *apiclient.Client, ids []string, until string, timeout time.Duration) error {
	started := time.Now()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errWaitOver)
		defer cancel()
	}
	ticker := time.NewTicker(waitPollEvery)
	defer ticker.Stop()
	var last []statusDocument
	for {
		all, err := statuses(ctx, c, ids)
		switch {
		case errors.Is(context.Cause(ctx), errWaitOver):
			return fmt.Errorf("not %s after %s:%s", until, timeout, strays(last, until))
		case err != nil:
			return err
		}
		last = all
		stray := slices.DeleteFunc(slices.Clone(all), func(s statusDocument) bool { return s.State == until })
		if len(stray) == 0 {
			return p.done(fmt.Sprintf("%s %s after %.1f s", count(int64(len(all)), "subscriber"), until, time.Since(started).Seconds()),
				map[string]any{"state": until, "subscribers": len(all), "seconds": time.Since(started).Seconds()})
		}
		if i := slices.IndexFunc(stray, func(s statusDocument) bool { return s.State == "halted" || s.State == "disabled" }); i >= 0 {
			return fmt.Errorf("%s will not be %s by itself: %s: %s", stray[i].Subscriber, until, stray[i].State, stray[i].Reason)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

var errWaitOver = errors.New("the time to wait is over")

// strays lists those that are in another state.
func strays(all []statusDocument, until string) string {
	const shownMax = 10
	var b strings.Builder
	n := 0
	for _, s := range all {
		if s.State == until {
			continue
		}
		if n++; n <= shownMax {
			fmt.Fprintf(&b, "\n  %s is %s: %s", s.Subscriber, s.State, printable(s.Reason))
		}
	}
	if n > shownMax {
		fmt.Fprintf(&b, "\n  and %d more", n-shownMax)
	}
	return b.String()
}
