package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postroad/event"
	"postroad/internal/apiclient"
)

// replayDocument is what the commands read of a replay.
type replayDocument struct {
	ID        int64  `json:"id"`
	State     string `json:"state"`
	Selection struct {
		Select        string      `json:"select"`
		ResourceNames []string    `json:"resourceNames"`
		Keys          []event.Key `json:"keys"`
	} `json:"selection"`
	FromSequence int64    `json:"fromSequence"`
	ToSequence   int64    `json:"toSequence"`
	Total        int64    `json:"total"`
	Done         int64    `json:"done"`
	Rate         float64  `json:"rate"`
	ETASeconds   *float64 `json:"etaSeconds"`
	CreatedAt    string   `json:"createdAt"`
}

// open reports that there is something left of the replay.
func (r replayDocument) open() bool { return r.State != "done" && r.State != "cancelled" }

func (r replayDocument) what() string {
	if r.Selection.Select == "missed" {
		return "missed"
	}
	text := decimal(r.FromSequence) + "-" + decimal(r.ToSequence)
	if len(r.Selection.ResourceNames) > 0 {
		text += " of " + strings.Join(r.Selection.ResourceNames, ", ")
	}
	if n := len(r.Selection.Keys); n == 1 {
		text += " of " + keyText(r.Selection.Keys[0])
	} else if n > 1 {
		text += fmt.Sprintf(" of %d records", n)
	}
	return text
}

// progress says how far the replay is, in one line.
func (r replayDocument) progress() string {
	text := fmt.Sprintf("%s of %s", thousands(r.Done), thousands(r.Total))
	if r.State != "running" {
		return text + ", " + r.State
	}
	if r.Rate > 0 {
		text += fmt.Sprintf(", %.0f a second", r.Rate)
	}
	if r.ETASeconds != nil {
		text += ", " + time.Duration(*r.ETASeconds*float64(time.Second)).Round(time.Second).String() + " left"
	}
	return text
}

func replaysPath(id string) string { return subscriberPath(id, "/replays") }

func replayPath(id string, replay int64) string { return replaysPath(id) + "/" + decimal(replay) }

// replayFlags say what to send again.
type replayFlags struct {
	from, to      int64
	since, until  string
	resourceNames []string
	keys          []string
	missed        bool
	dryRun, wait  bool
}

func (r *replayFlags) add(f *pflag.FlagSet) {
	f.Int64Var(&r.from, "from", 0, "the first `sequence`")
	f.Int64Var(&r.to, "to", 0, "the last `sequence`")
	f.StringVar(&r.since, "since", "", "events recorded at this RFC 3339 `time` or later, or so long ago, as in 2h or 7d")
	f.StringVar(&r.until, "until", "", "events recorded at this `time` or before, or so long ago")
	f.StringSliceVar(&r.resourceNames, "resource", nil, "only events of these resource `names`; * may end one")
	f.StringArrayVar(&r.keys, "key", nil, "only events of this record, as `RESOURCE/KEY`; may be given more than once")
	f.BoolVar(&r.missed, "missed", false, "the dead letters, and nothing else")
	f.BoolVar(&r.dryRun, "dry-run", false, "count them only")
	f.BoolVar(&r.wait, "wait", false, "wait until they are sent, and show how far it is")
}

// document is the request. A flag that is not given is not in it.
func (r *replayFlags) document(flags *pflag.FlagSet, now time.Time) (map[string]any, error) {
	document := map[string]any{}
	if flags.Changed("from") {
		document["fromSequence"] = r.from
	}
	if flags.Changed("to") {
		document["toSequence"] = r.to
	}
	for _, bound := range []struct{ flag, member, text string }{{"since", "fromTime", r.since}, {"until", "toTime", r.until}} {
		if bound.text == "" {
			continue
		}
		at, err := timeOrAgo(bound.text, now)
		if err != nil {
			return nil, usagef("--%s %q is neither a time such as 2026-03-01T09:30:00Z nor a length such as 2h", bound.flag, bound.text)
		}
		document[bound.member] = at
	}
	if flags.Changed("resource") {
		document["resourceNames"] = r.resourceNames
	}
	var keys []event.Key
	for _, text := range r.keys {
		key, err := parseKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) > 0 {
		document["keys"] = keys
	}
	switch {
	case len(document) == 0 && !r.missed:
		return nil, usagef("say what to send again: --missed, --from, --to, --since, --until, --resource or --key")
	case len(document) > 0 && r.missed:
		return nil, usagef("--missed is all dead letters: it goes with nothing else that selects events")
	case r.missed:
		document["select"] = "missed"
	}
	if r.dryRun && r.wait {
		return nil, usagef("--dry-run sends nothing that --wait could wait for")
	}
	if r.dryRun {
		document["dryRun"] = true
	}
	return document, nil
}

// timeOrAgo reads a time, or a length before now.
func timeOrAgo(text string, now time.Time) (string, error) {
	if length, err := event.ParseDuration(text); err == nil {
		return now.Add(-length.Std()).UTC().Format(time.RFC3339Nano), nil
	}
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return "", fmt.Errorf("read time: %w", err)
	}
	return text, nil
}

func (p *program) subscriberReplayCommand() *cobra.Command {
	r := &replayFlags{}
	command := &cobra.Command{
		Use:   "replay ID",
		Short: "Send a subscriber events of the past again, before new ones",
		Long: `Send a subscriber events of the past again: those between two sequences or
times, of some resources or records, or with --missed the events that were given
up (its dead letters). What it has scanned, or will, is not changed by it.

Replays are sent one after the other, each in order, before new events. Requests
carry the header Postroad-Replay.

` + keyHelp,
		Example: `  postroad subscriber replay acme --missed --wait
  postroad subscriber replay acme --since 2h --resource Property --dry-run
  postroad subscriber replay acme --key Property/235021 --from 1`,
		Args: cobra.ExactArgs(1),
	}
	r.add(command.Flags())
	command.RunE = p.action(func(ctx context.Context, args []string) error {
		document, err := r.document(command.Flags(), time.Now())
		if err != nil {
			return err
		}
		c, err := p.client(ctx)
		if err != nil {
			return err
		}
		answer, err := c.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: replaysPath(args[0]), In: document}, nil)
		if err != nil {
			return err
		}
		if r.dryRun {
			return p.printDryRun(answer.Body)
		}
		return p.replayMade(ctx, c, args[0], answer.Body, r.wait)
	})
	return command
}

func (p *program) printDryRun(body []byte) error {
	if p.json {
		return p.printJSON(body)
	}
	var d struct{ Total, FirstSequence, LastSequence int64 }
	if err := json.Unmarshal(body, &d); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	p.printf("it would send %s, %s to %s\n", count(d.Total, "event"), decimal(d.FirstSequence), decimal(d.LastSequence))
	return nil
}

func (p *program) replayMade(ctx context.Context, c *apiclient.Client, id string, body []byte, wait bool) error {
	var r replayDocument
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	p.tell(fmt.Sprintf("replay %d of %s: %s, %s", r.ID, id, count(r.Total, "event"), r.what()))
	if wait {
		return p.awaitReplay(ctx, c, id, r)
	}
	if p.json {
		return p.printJSON(body)
	}
	p.printf("`postroad subscriber replays %s` says how far it is\n", id)
	return nil
}

// Periods of `replay --wait`.
const (
	replayPollEvery = 200 * time.Millisecond
	replayLineEvery = 5 * time.Second // where there is no terminal
)

// awaitReplay shows how far a replay is until it is finished. It ends early
// where only a person can get it going again.
func (p *program) awaitReplay(ctx context.Context, c *apiclient.Client, id string, r replayDocument) error {
	started, told := time.Now(), time.Now()
	bar := p.replayBar(r.Total)
	defer func() { _ = bar.Close() }()
	ticker := time.NewTicker(replayPollEvery)
	defer ticker.Stop()
	for {
		answer, err := c.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: replayPath(id, r.ID)}, &r)
		if err != nil {
			return err
		}
		if !r.open() {
			_ = bar.Close()
			return p.replayOver(id, r, answer.Body, time.Since(started))
		}
		s, err := getStatus(ctx, c, id)
		if err != nil {
			return err
		}
		if s.State == "halted" || s.State == "disabled" {
			return fmt.Errorf("replay %d will not go on by itself (%s): %s is %s: %s", r.ID, r.progress(), id, s.State, printable(s.Reason))
		}
		if bar.set(r.Done); !bar.shown && time.Since(told) >= replayLineEvery {
			p.tell(r.progress())
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// replayOver says how a replay ended; a cancelled one is a failure for whoever
// waits for it.
func (p *program) replayOver(id string, r replayDocument, body []byte, took time.Duration) error {
	if r.State != "done" {
		return errors.New("replay " + decimal(r.ID) + " was " + r.State + " at " + r.progress())
	}
	if p.json {
		return p.printJSON(body)
	}
	p.printf("replay %d of %s is done: %s in %.1f s\n", r.ID, id, count(r.Done, "event"), took.Seconds())
	return nil
}

// replayBar counts events, on a terminal only.
type replayBar struct {
	*progressbar.ProgressBar
	shown bool
}

func (b replayBar) set(done int64) {
	if b.shown {
		_ = b.Set64(done)
	}
}

func (p *program) replayBar(total int64) replayBar {
	screen, ok := terminal(p.stderr)
	if !ok || p.json {
		return replayBar{progressbar.DefaultSilent(total), false}
	}
	return replayBar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(screen),
		progressbar.OptionSetDescription("replaying"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("events"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
	), true}
}

func (p *program) subscriberReplaysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replays ID",
		Short: "Show a subscriber's replays, the newest first, and how far they are",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			replays, raw, err := listAll[replayDocument](ctx, c, replaysPath(args[0]), "replays", nil)
			if err != nil {
				return err
			}
			if p.json {
				return p.encode(map[string]any{"replays": raw})
			}
			if len(replays) == 0 {
				p.printf("%s has no replays\n", args[0])
				return nil
			}
			t := p.table("REPLAY", "STATE", "EVENTS", "MADE", "PROGRESS")
			for _, r := range replays {
				t.row(decimal(r.ID), r.State, r.what(), r.CreatedAt, r.progress())
			}
			return t.flush()
		}),
	}
}

// replayControls are the commands that steer one replay.
func (p *program) replayControls() (commands []*cobra.Command) {
	for _, verb := range []struct{ name, method, path, short string }{
		{"pause", http.MethodPost, "/pause", "Pause a replay: those after it, and new events, go on"},
		{"resume", http.MethodPost, "/resume", "Go on with a replay that was paused"},
		{"cancel", http.MethodDelete, "", "End a replay where it is"},
	} {
		commands = append(commands, &cobra.Command{
			Use:   "replay-" + verb.name + " ID REPLAY",
			Short: verb.short,
			Args:  cobra.ExactArgs(2),
			RunE: p.action(func(ctx context.Context, args []string) error {
				number, err := strconv.ParseInt(args[1], 10, 64)
				if err != nil || number < 1 {
					return usagef("%q is no replay: they are numbered from 1, see `postroad subscriber replays %s`", args[1], args[0])
				}
				return p.controlReplay(ctx, args[0], number, verb.name, verb.method, verb.path)
			}),
		})
	}
	return commands
}

func (p *program) controlReplay(ctx context.Context, id string, number int64, verb, method, path string) error {
	answer, err := p.call(ctx, apiclient.Request{Method: method, Path: replayPath(id, number) + path}, nil)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(answer.Body)
	}
	if answer.Status == http.StatusAccepted {
		p.printf("%s of replay %d of %s accepted; it is not in force yet\n", verb, number, id)
		return nil
	}
	var r replayDocument
	if err := json.Unmarshal(answer.Body, &r); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	p.printf("replay %d of %s is %s: %s of %s\n", r.ID, id, r.State, thousands(r.Done), count(r.Total, "event"))
	return nil
}
