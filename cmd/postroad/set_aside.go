package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/event"
	"postroad/internal/apiclient"
)

// heldKeyDocument is what the commands read of a held key.
type heldKeyDocument struct {
	event.Key
	Since         string `json:"since"`
	Events        int64  `json:"events"`
	FirstSequence int64  `json:"firstSequence"`
	Attempts      int    `json:"attempts"`
	NotBefore     string `json:"notBefore"`
	LastStatus    int    `json:"lastStatus"`
	LastError     string `json:"lastError"`
}

// deadLetterDocument is what the commands read of a dead letter.
type deadLetterDocument struct {
	event.Key
	Sequence   int64  `json:"sequence"`
	At         string `json:"at"`
	Reason     string `json:"reason"`
	Attempts   int    `json:"attempts"`
	LastStatus int    `json:"lastStatus"`
	LastError  string `json:"lastError"`
	Replay     int64  `json:"replay"`
}

// keyHelp says how a key is written.
const keyHelp = `A key is written RESOURCE/KEY, as in Property/235021: what comes before the first
slash is the resource's name.`

// parseKey reads RESOURCE/KEY.
func parseKey(text string) (event.Key, error) {
	name, key, ok := strings.Cut(text, "/")
	if !ok || name == "" || key == "" {
		return event.Key{}, usagef("%q is no key: write it as RESOURCE/KEY, such as Property/235021", text)
	}
	return event.Key{ResourceName: name, ResourceRecordKey: key}, nil
}

func keyText(k event.Key) string { return k.ResourceName + "/" + k.ResourceRecordKey }

func (p *program) subscriberSeekCommand() *cobra.Command {
	var to string
	command := &cobra.Command{
		Use:   "seek ID --to now|beginning|SEQUENCE|TIME",
		Short: "Move a subscriber: back to be sent events again, forward to leave events out",
		Long: `Move a subscriber. The next event it is sent is the first above SEQUENCE, the
first recorded at TIME (RFC 3339) or later, the first that the feed still has
(beginning), or the first one published from now on.

Back: what is set aside above the place is dropped, as those events come again in
their order. Forward: keys that are held and dead letters stay. A wait, a pause or
a halt goes on.`,
		Example: `  postroad subscriber seek acme --to 120000
  postroad subscriber seek acme --to 2026-03-01T09:30:00Z`,
		Args: cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			target, err := seekTarget(to)
			if err != nil {
				return err
			}
			return p.control(ctx, args[0], "seek", "/seek", map[string]any{"to": target})
		}),
	}
	command.Flags().StringVar(&to, "to", "", "`where` to: now, beginning, a sequence or a time")
	_ = command.MarkFlagRequired("to") // it is there
	return command
}

// seekTarget is the member "to" of a seek.
func seekTarget(text string) (any, error) {
	if text == "now" || text == "beginning" {
		return text, nil
	}
	if sequence, err := strconv.ParseInt(text, 10, 64); err == nil {
		return map[string]any{"sequence": sequence}, nil
	}
	if _, err := time.Parse(time.RFC3339, text); err == nil {
		return map[string]any{"time": text}, nil
	}
	return nil, usagef("--to %q is neither now, beginning, a sequence nor a time such as 2026-03-01T09:30:00Z", text)
}

func (p *program) subscriberSkipCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "skip ID SEQUENCE",
		Short: "Make a dead letter of the event at which a subscriber halted, and go on after it",
		Args:  cobra.ExactArgs(2),
		RunE: p.action(func(ctx context.Context, args []string) error {
			sequence, err := parseSequence(args[1])
			if err != nil {
				return err
			}
			return p.control(ctx, args[0], "skip", "/skip", map[string]any{"sequence": sequence})
		}),
	}
}

func parseSequence(text string) (int64, error) {
	sequence, err := strconv.ParseInt(text, 10, 64)
	if err != nil || sequence < 1 {
		return 0, usagef("%q is no sequence: it is a number from 1 on", text)
	}
	return sequence, nil
}

func (p *program) subscriberHeldCommand() *cobra.Command {
	var key string
	command := &cobra.Command{
		Use:   "held ID",
		Short: "Show the keys that are held, or the events that wait behind one",
		Long:  "Show the keys that are held because the consumer refuses the first event of each,\nor with --key the events that wait behind one of them.\n\n" + keyHelp,
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			if key == "" {
				return p.listHeldKeys(ctx, c, args[0])
			}
			return p.listHeldEvents(ctx, c, args[0], key)
		}),
	}
	command.Flags().StringVar(&key, "key", "", "show the events of this `RESOURCE/KEY`")
	return command
}

func (p *program) listHeldKeys(ctx context.Context, c *apiclient.Client, id string) error {
	keys, raw, err := listAll[heldKeyDocument](ctx, c, subscriberPath(id, "/held-keys"), "heldKeys", nil)
	if err != nil {
		return err
	}
	if p.json {
		return p.encode(map[string]any{"heldKeys": raw})
	}
	if len(keys) == 0 {
		p.printf("no key of %s is held\n", id)
		return nil
	}
	t := p.table("KEY", "EVENTS", "FIRST", "SINCE", "ATTEMPTS", "NEXT REQUEST", "LAST ANSWER")
	for _, k := range keys {
		next := k.NotBefore
		if next == "" {
			next = "due"
		}
		t.row(keyText(k.Key), decimal(k.Events), decimal(k.FirstSequence), k.Since, strconv.Itoa(k.Attempts), next, answerText(k.LastStatus, k.LastError))
	}
	return t.flush()
}

// answerText is the last answer in a few words.
func answerText(status int, text string) string {
	switch {
	case text != "":
		return text
	case status != 0:
		return "HTTP " + strconv.Itoa(status)
	}
	return "none"
}

func (p *program) listHeldEvents(ctx context.Context, c *apiclient.Client, id, text string) error {
	key, err := parseKey(text)
	if err != nil {
		return err
	}
	query := url.Values{"resourceName": {key.ResourceName}, "resourceRecordKey": {key.ResourceRecordKey}}
	events, raw, err := listAll[struct{ Sequence, Replay int64 }](ctx, c, subscriberPath(id, "/held-keys/events"), "events", query)
	if err != nil {
		return err
	}
	if p.json {
		return p.encode(map[string]any{"events": raw})
	}
	if len(events) == 0 {
		p.printf("nothing of %s waits for %s\n", printable(text), id)
		return nil
	}
	t := p.table("SEQUENCE", "REPLAY")
	for _, e := range events {
		t.row(decimal(e.Sequence), numberOrNone(e.Replay))
	}
	return t.flush()
}

func numberOrNone(n int64) string {
	if n == 0 {
		return "-"
	}
	return decimal(n)
}

// heldControls are the commands that steer one held key.
func (p *program) heldControls() (commands []*cobra.Command) {
	for _, verb := range []struct{ name, short string }{
		{"retry", "Send the first event of a held key again at once"},
		{"skip", "Make a dead letter of the first event of a held key, and go on with its next"},
		{"release", "Make dead letters of all events that wait behind a held key, and hold it no longer"},
	} {
		var sequence int64
		command := &cobra.Command{
			Use:   "held-" + verb.name + " ID RESOURCE/KEY",
			Short: verb.short,
			Long:  verb.short + ".\n\n" + keyHelp,
			Args:  cobra.ExactArgs(2),
		}
		command.RunE = p.action(func(ctx context.Context, args []string) error {
			key, err := parseKey(args[1])
			if err != nil {
				return err
			}
			in := map[string]any{"resourceName": key.ResourceName, "resourceRecordKey": key.ResourceRecordKey}
			if command.Flags().Changed("sequence") {
				in["sequence"] = sequence
			}
			return p.control(ctx, args[0], "held-"+verb.name, "/held-keys/"+verb.name, in)
		})
		if verb.name == "skip" {
			command.Flags().Int64Var(&sequence, "sequence", 0, "only if this `event` is the first that waits")
		}
		commands = append(commands, command)
	}
	return commands
}

func (p *program) subscriberDeadLettersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dead-letters ID",
		Short: "Show the events that were given up",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			letters, raw, err := listAll[deadLetterDocument](ctx, c, subscriberPath(args[0], "/dead-letters"), "deadLetters", nil)
			if err != nil {
				return err
			}
			if p.json {
				return p.encode(map[string]any{"deadLetters": raw})
			}
			if len(letters) == 0 {
				p.printf("%s has no dead letters\n", args[0])
				return nil
			}
			t := p.table("SEQUENCE", "KEY", "SINCE", "REASON", "ATTEMPTS", "LAST ANSWER", "REPLAY")
			for _, d := range letters {
				t.row(decimal(d.Sequence), keyText(d.Key), d.At, d.Reason, strconv.Itoa(d.Attempts), answerText(d.LastStatus, d.LastError), numberOrNone(d.Replay))
			}
			return t.flush()
		}),
	}
}

func (p *program) subscriberDismissCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dismiss ID SEQUENCE...",
		Short: "Forget dead letters: nobody needs them any more",
		Args:  cobra.MinimumNArgs(2),
		RunE: p.action(func(ctx context.Context, args []string) error {
			var sequences []int64
			for _, text := range args[1:] {
				sequence, err := parseSequence(text)
				if err != nil {
					return err
				}
				sequences = append(sequences, sequence)
			}
			var d struct{ Dismissed int64 }
			answer, err := p.call(ctx, apiclient.Request{
				Method: http.MethodPost, Path: subscriberPath(args[0], "/dead-letters/dismiss"), In: map[string]any{"sequences": sequences},
			}, &d)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(answer.Body)
			}
			p.printf("dismissed %s of %s\n", count(d.Dismissed, "dead letter"), args[0])
			return nil
		}),
	}
}
