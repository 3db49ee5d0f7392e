package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"postroad/event"
	"postroad/internal/apiclient"
)

func (p *program) subscriberCommand() *cobra.Command {
	subscriber := &cobra.Command{
		Use: "subscriber", Aliases: []string{"sub"}, Short: "Create, change, pause, move, test and delete subscribers, and see to what they missed", Args: cobra.NoArgs, RunE: helpOnly,
	}
	subscriber.AddCommand(
		p.subscriberCreateCommand(), p.subscriberUpdateCommand(), p.subscriberListCommand(), p.subscriberGetCommand(), p.subscriberDeleteCommand(),
		p.subscriberPauseCommand(), p.subscriberResumeCommand(), p.subscriberTestCommand(), p.rotateSecretCommand(),
		p.subscriberSeekCommand(), p.subscriberSkipCommand(), p.subscriberHeldCommand(), p.subscriberDeadLettersCommand(), p.subscriberDismissCommand(),
		p.subscriberReplayCommand(), p.subscriberReplaysCommand(),
	)
	subscriber.AddCommand(p.heldControls()...)
	subscriber.AddCommand(p.replayControls()...)
	return subscriber
}

func subscriberPath(id, rest string) string { return "/v1/subscribers/" + url.PathEscape(id) + rest }

// call makes a request about a subscriber, with a client found for it.
func (p *program) call(ctx context.Context, r apiclient.Request, out any) (*apiclient.Answer, error) {
	c, err := p.client(ctx)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, r, out)
}

func (p *program) subscriberCreateCommand() *cobra.Command {
	s := &subscriberFlags{}
	command := &cobra.Command{
		Use:   "create ID",
		Short: "Create a subscriber",
		Example: `  postroad subscriber create acme --endpoint https://acme.example/events --start beginning
  postroad subscriber create acme --file acme.json --label "Acme production"`,
		Args: cobra.ExactArgs(1),
	}
	s.add(command.Flags())
	s.addFixed(command.Flags())
	command.RunE = p.action(func(ctx context.Context, args []string) error {
		document, err := s.document(p, command.Flags())
		if err != nil {
			return err
		}
		document["id"] = args[0]
		var created event.Subscriber
		answer, err := p.call(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers", In: document}, &created)
		if err != nil {
			return err
		}
		if p.json {
			return p.printJSON(answer.Body)
		}
		p.printf("created subscriber %s on feed %s\n", created.ID, created.Feed)
		if created.Signing.Secret != "" {
			p.printf("signing secret (shown once): %s\n", created.Signing.Secret)
		}
		return nil
	})
	return command
}

func (p *program) subscriberUpdateCommand() *cobra.Command {
	s := &subscriberFlags{}
	var ifMatch int64
	command := &cobra.Command{
		Use:   "update ID",
		Short: "Change what the flags or the file name, and nothing else",
		Args:  cobra.ExactArgs(1),
	}
	s.add(command.Flags())
	command.Flags().Int64Var(&ifMatch, "if-version", 0, "change it only at this `version` of the configuration")
	command.RunE = p.action(func(ctx context.Context, args []string) error {
		patch, err := s.document(p, command.Flags())
		if err != nil {
			return err
		}
		if len(patch) == 0 {
			return usagef("nothing to change: name a flag or a file")
		}
		r := apiclient.Request{
			Method: http.MethodPatch, Path: subscriberPath(args[0], ""), In: patch, ContentType: contentTypeMergePatch, Header: http.Header{},
		}
		if ifMatch > 0 {
			r.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(ifMatch, 10)))
		}
		answer, err := p.call(ctx, r, nil)
		if err != nil {
			return err
		}
		if p.json {
			return p.printJSON(answer.Body)
		}
		p.printf("changed subscriber %s\n", args[0])
		return nil
	})
	return command
}

func (p *program) subscriberListCommand() *cobra.Command {
	var feed string
	command := &cobra.Command{
		Use:   "list",
		Short: "List subscribers",
		Args:  cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			query := url.Values{}
			if feed != "" {
				query.Set("feed", feed)
			}
			list, raw, err := listAll[event.Subscriber](ctx, c, "/v1/subscribers", "subscribers", query)
			if err != nil {
				return err
			}
			if p.json {
				return p.encode(map[string]any{"subscribers": raw})
			}
			t := p.table("ID", "FEED", "ENDPOINT", "FORMAT", "BATCH", "LANES", "LABEL")
			for _, s := range list {
				if s.Mode == event.ModePull {
					t.row(s.ID, s.Feed, "(pull)", "", "", "", "")
					continue
				}
				t.row(s.ID, s.Feed, s.Endpoint.URL, s.Format, s.BatchSize.String(), s.Lanes.String(), s.Label)
			}
			return t.flush()
		}),
	}
	command.Flags().StringVar(&feed, "feed", "", "only those of this `feed`")
	return command
}

func (p *program) subscriberGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show a subscriber's configuration",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			answer, err := p.call(ctx, apiclient.Request{Method: http.MethodGet, Path: subscriberPath(args[0], "")}, nil)
			if err != nil {
				return err
			}
			return p.printJSON(answer.Body) // the configuration is a document for people too
		}),
	}
}

func (p *program) subscriberDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a subscriber: it is sent nothing any more",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			if _, err := p.call(ctx, apiclient.Request{Method: http.MethodDelete, Path: subscriberPath(args[0], "")}, nil); err != nil {
				return err
			}
			return p.done("deleted subscriber "+args[0], map[string]string{"deleted": args[0]})
		}),
	}
}

func (p *program) subscriberPauseCommand() *cobra.Command {
	var reason, until string
	var length time.Duration
	command := &cobra.Command{
		Use:   "pause ID",
		Short: "Pause a subscriber: nothing is lost, nothing is sent",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			in := map[string]any{}
			if reason != "" {
				in["reason"] = reason
			}
			switch {
			case until != "" && length != 0:
				return usagef("--until and --for exclude each other")
			case until != "":
				in["until"] = until
			case length < 0:
				return usagef("--for must be above 0")
			case length > 0:
				in["until"] = time.Now().Add(length).UTC().Format(time.RFC3339Nano)
			}
			return p.control(ctx, args[0], "pause", "/pause", in)
		}),
	}
	command.Flags().StringVar(&reason, "reason", "", "`text` shown in the status")
	command.Flags().StringVar(&until, "until", "", "end the pause by itself at this RFC 3339 `time`")
	command.Flags().DurationVar(&length, "for", 0, "end the pause by itself after this `duration`, as in 10m")
	return command
}

func (p *program) subscriberResumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume ID",
		Short: "End a pause, a halt, a 410 or, where none of them holds, a wait",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			return p.control(ctx, args[0], "resume", "/resume", nil)
		}),
	}
}

// control asks for a control, at its path below the subscriber's, and says
// whether it is in force.
func (p *program) control(ctx context.Context, id, kind, path string, in map[string]any) error {
	r := apiclient.Request{Method: http.MethodPost, Path: subscriberPath(id, path)}
	if len(in) > 0 {
		r.In = in
	}
	answer, err := p.call(ctx, r, nil)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(answer.Body)
	}
	if answer.Status == http.StatusAccepted {
		p.printf("%s of %s accepted; it is not in force yet\n", kind, id)
		return nil
	}
	var s statusDocument
	if err := json.Unmarshal(answer.Body, &s); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	p.printf("%s is %s: %s\n", id, s.State, printable(s.Reason))
	return nil
}

// testDocument is the answer to a test request.
type testDocument struct {
	Success   bool    `json:"success"`
	Status    int     `json:"status"`
	Error     string  `json:"error"`
	DNSMs     float64 `json:"dnsMs"`
	ConnectMs float64 `json:"connectMs"`
	TLSMs     float64 `json:"tlsMs"`
	TotalMs   float64 `json:"totalMs"`
}

func (p *program) subscriberTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test ID",
		Short: "Send an empty request to the endpoint and say how it went; fails unless it answers 2xx",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			var d testDocument
			answer, err := p.call(ctx, apiclient.Request{Method: http.MethodPost, Path: subscriberPath(args[0], "/test")}, &d)
			if err != nil {
				return err
			}
			if p.json {
				if err := p.printJSON(answer.Body); err != nil {
					return err
				}
			} else {
				p.printTest(args[0], d)
			}
			if !d.Success {
				return silentError{exitError}
			}
			return nil
		}),
	}
}

func (p *program) printTest(id string, d testDocument) {
	outcome := "no answer"
	if d.Status != 0 {
		outcome = fmt.Sprintf("HTTP %d", d.Status)
	}
	p.printf("%s answered: %s in %.0f ms (DNS %.0f, connect %.0f, TLS %.0f)\n", id, outcome, d.TotalMs, d.DNSMs, d.ConnectMs, d.TLSMs)
	if d.Error != "" {
		p.printf("%s\n", printable(d.Error))
	}
}

func (p *program) rotateSecretCommand() *cobra.Command {
	var overlap string
	command := &cobra.Command{
		Use:   "rotate-secret ID",
		Short: "Make a new signing secret; the old one signs along for a while",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			r := apiclient.Request{Method: http.MethodPost, Path: subscriberPath(args[0], "/signing-secret/rotate")}
			if overlap != "" {
				r.In = map[string]string{"overlap": overlap}
			}
			var changed event.Subscriber
			answer, err := p.call(ctx, r, &changed)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(answer.Body)
			}
			p.printf("signing secret of %s (shown once): %s\n", args[0], changed.Signing.Secret)
			return nil
		}),
	}
	command.Flags().StringVar(&overlap, "overlap", "", "how long the old secret stays valid, as in 24h or 7d; the server's default if left out")
	return command
}
