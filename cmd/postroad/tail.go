package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/event"
	"postroad/internal/apiclient"
)

// tailFlags say what to follow.
type tailFlags struct {
	subscriber string
	after      int64
	partition  string
	resources  []string
	types      []string
}

func (p *program) tailCommand() *cobra.Command {
	f := &tailFlags{}
	command := &cobra.Command{
		Use:   "tail [FEED]",
		Short: "Print a feed's events as they come",
		Long: `Print the events of a feed (default: default), or those that a subscriber is owed,
as they come; Ctrl-C ends it. Without --after it begins at the head of the feed, or
at the subscriber's position, which stays where it is. A connection that is lost is
taken up again where it broke off. With --json each line is an event, as the server
sent it.`,
		Example: `  postroad tail
  postroad tail listings --after 0 --resource Property --type 'Created,Updated*'
  postroad tail --partition 0/8 --json
  postroad tail --subscriber acme`,
		Args: cobra.MaximumNArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			stream, err := f.stream(args)
			if err != nil {
				return err
			}
			return p.tail(ctx, stream)
		}),
	}
	flags := command.Flags()
	flags.StringVar(&f.subscriber, "subscriber", "", "follow what the subscriber with this `id` is owed, instead of a feed")
	flags.Int64Var(&f.after, "after", -1, "begin after this `sequence`; 0 is the beginning")
	flags.StringVar(&f.partition, "partition", "", "only this part of the records, as `i/n`: 0/8 is the first of eight")
	flags.StringSliceVar(&f.resources, "resource", nil, "only these `resources`; * at the end stands for anything")
	flags.StringSliceVar(&f.types, "type", nil, "only these event `types`; * at the end stands for anything")
	return command
}

// stream is what the flags ask for.
func (f *tailFlags) stream(args []string) (*apiclient.Stream, error) {
	s := &apiclient.Stream{Query: url.Values{}, After: f.after}
	switch {
	case f.subscriber != "" && len(args) > 0:
		return nil, usagef("name a feed or --subscriber, not both")
	case f.subscriber != "" && len(f.resources)+len(f.types) > 0:
		return nil, usagef("--resource and --type are for a feed: a subscriber has its own filter")
	case f.after < -1:
		return nil, usagef("--after must not be below 0")
	case f.subscriber != "":
		s.Path = subscriberPath(f.subscriber, "/stream")
	case len(args) > 0:
		s.Path = feedPath(args[0]) + "/stream"
	default:
		s.Path = feedPath("default") + "/stream"
	}
	if f.partition != "" {
		if _, err := event.ParsePartition(f.partition); err != nil {
			return nil, usagef("--partition %w", err)
		}
		s.Query.Set("partition", f.partition)
	}
	if len(f.resources) > 0 {
		s.Query.Set("resourceNames", strings.Join(f.resources, ","))
	}
	if len(f.types) > 0 {
		s.Query.Set("eventTypes", strings.Join(f.types, ","))
	}
	return s, nil
}

func (p *program) tail(ctx context.Context, s *apiclient.Stream) error {
	return p.follow(ctx, s, func(i apiclient.Item) error {
		if p.json {
			_, err := p.stdout.Write(append(i.Line, '\n'))
			return err
		}
		var e struct {
			ResourceName      string          `json:"resourceName"`
			ResourceRecordKey string          `json:"resourceRecordKey"`
			EventType         string          `json:"eventType"`
			RecordedAt        time.Time       `json:"recordedAt"`
			Data              json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(i.Line, &e); err != nil {
			return fmt.Errorf("read event %d: %w", i.Sequence, err)
		}
		cells := []string{e.RecordedAt.Local().Format("15:04:05.000"), decimal(i.Sequence), e.ResourceName + " " + e.ResourceRecordKey, e.EventType, string(e.Data)}
		p.printf("%s\n", strings.TrimRight(printable(strings.Join(cells, "  ")), " "))
		return nil
	})
}

// follow hands on a stream's items until ctx ends, which is no error.
func (p *program) follow(ctx context.Context, s *apiclient.Stream, take func(apiclient.Item) error) error {
	var err error
	if s.Client, err = p.client(ctx); err != nil {
		return err
	}
	s.Waiting = func(reason error, pause time.Duration) {
		// What takes half a second is not worth a word.
		if pause >= time.Second && !p.json {
			fmt.Fprintf(p.stderr, "postroad: %s; trying again in %d s, after %s\n", printable(reason.Error()), int(pause.Seconds()), decimal(max(0, s.After)))
		}
	}
	if err = s.Follow(ctx, take); ctx.Err() != nil {
		return nil
	}
	return err
}
