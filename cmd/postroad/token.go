package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/event"
	"postroad/internal/apiclient"
)

type tokenDocument struct {
	ID          string   `json:"id"`
	Role        string   `json:"role"`
	Feeds       []string `json:"feeds"`
	Subscriber  string   `json:"subscriber"`
	Description string   `json:"description"`
	State       string   `json:"state"`
	ExpiresAt   string   `json:"expiresAt"`
	LastUsedAt  string   `json:"lastUsedAt"`
	Token       string   `json:"token"`
}

// of says what a token is for.
func (d *tokenDocument) of() string {
	if d.Subscriber != "" {
		return d.Subscriber
	}
	return strings.Join(d.Feeds, ",")
}

func (p *program) tokenCommand() *cobra.Command {
	token := &cobra.Command{Use: "token", Short: "Create, list and revoke the API's tokens", Args: cobra.NoArgs, RunE: helpOnly}
	token.AddCommand(p.tokenCreateCommand(), p.tokenListCommand(), p.tokenRevokeCommand())
	return token
}

func (p *program) tokenCreateCommand() *cobra.Command {
	var in struct {
		Role        string   `json:"role"`
		Feeds       []string `json:"feeds,omitempty"`
		Subscriber  string   `json:"subscriber,omitempty"`
		Description string   `json:"description,omitempty"`
		ExpiresAt   string   `json:"expiresAt,omitempty"`
	}
	var expires string
	command := &cobra.Command{
		Use:   "create",
		Short: "Create a token and show it, this once",
		Example: `  postroad token create --role publisher --feed orders --expires 90d
  postroad token create --role subscriber --subscriber acme --description "for Acme's operators"`,
		Args: cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			var err error
			if in.ExpiresAt, err = expiry(expires, time.Now()); err != nil {
				return err
			}
			var made tokenDocument
			answer, err := p.call(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/tokens", In: in}, &made)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(answer.Body)
			}
			p.printf("created token %s with the role %s", made.ID, made.Role)
			if of := made.of(); of != "" {
				p.printf(" of %s", of)
			}
			if made.ExpiresAt != "" {
				p.printf(", until %s", made.ExpiresAt)
			}
			p.printf("\ntoken (shown once): %s\n", made.Token)
			return nil
		}),
	}
	flags := command.Flags()
	flags.StringVar(&in.Role, "role", "", "what it may do: `role` admin, publisher, reader or subscriber")
	flags.StringSliceVar(&in.Feeds, "feed", nil, "`feed` that a publisher or reader may use; repeat it for more")
	flags.StringVar(&in.Subscriber, "subscriber", "", "`id` of the subscriber that it is for")
	flags.StringVar(&in.Description, "description", "", "`text` for people")
	flags.StringVar(&expires, "expires", "", "when it ends: a `time` from now such as 90d, or a time such as 2026-03-01T09:30:00Z; default: when it is revoked")
	_ = command.MarkFlagRequired("role")
	return command
}

// expiry reads a time from now on, or a time.
func expiry(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if length, err := event.ParseDuration(s); err == nil {
		return now.Add(length.Std()).UTC().Format(time.RFC3339), nil
	}
	if _, err := time.Parse(time.RFC3339, s); err != nil {
		return "", usagef("--expires %s: want a time from now such as 90d, or a time such as 2026-03-01T09:30:00Z", s)
	}
	return s, nil
}

func (p *program) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, ended ones too",
		Args:  cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			tokens, raw, err := listAll[tokenDocument](ctx, c, "/v1/tokens", "tokens", nil)
			if err != nil {
				return err
			}
			if p.json {
				return p.encode(map[string]any{"tokens": raw})
			}
			t := p.table("TOKEN", "ROLE", "OF", "STATE", "EXPIRES", "LAST USED", "DESCRIPTION")
			for i := range tokens {
				d := &tokens[i]
				t.row(d.ID, d.Role, d.of(), d.State, d.ExpiresAt, d.LastUsedAt, d.Description)
			}
			return t.flush()
		}),
	}
}

func (p *program) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "End a token: every process refuses it within 5 s",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			r := apiclient.Request{Method: http.MethodDelete, Path: "/v1/tokens/" + url.PathEscape(args[0])}
			if _, err := p.call(ctx, r, nil); err != nil {
				return err
			}
			return p.done("revoked token "+args[0], map[string]string{"revoked": args[0]})
		}),
	}
}
