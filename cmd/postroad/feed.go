package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"postroad/internal/apiclient"
)

type feedDocument struct {
	Name          string `json:"name"`
	Sequences     string `json:"sequences"`
	Description   string `json:"description"`
	Epoch         int    `json:"epoch"`
	Head          int64  `json:"head"`
	FirstSequence int64  `json:"firstSequence"`
	CreatedAt     string `json:"createdAt"`
}

func (p *program) feedCommand() *cobra.Command {
	feed := &cobra.Command{Use: "feed", Short: "Create, list, show, change and delete feeds", Args: cobra.NoArgs, RunE: helpOnly}
	feed.AddCommand(p.feedCreateCommand(), p.feedListCommand(), p.feedGetCommand(), p.feedUpdateCommand(), p.feedDeleteCommand())
	return feed
}

// helpOnly is for commands that are only the place of others.
func helpOnly(command *cobra.Command, _ []string) error { return command.Help() }

func (p *program) feedCreateCommand() *cobra.Command {
	in := map[string]string{}
	var sequences, description string
	command := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a feed",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			in["name"], in["sequences"] = args[0], sequences
			if description != "" {
				in["description"] = description
			}
			return p.feedCall(ctx, http.MethodPost, "/v1/feeds", in, "created")
		}),
	}
	command.Flags().StringVar(&sequences, "sequences", "assigned", "who numbers the events: `assigned` by Postroad, or supplied by the publisher")
	command.Flags().StringVar(&description, "description", "", "`text` for people")
	return command
}

func (p *program) feedUpdateCommand() *cobra.Command {
	var description string
	command := &cobra.Command{
		Use:   "update NAME",
		Short: "Change a feed's description",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			return p.feedCall(ctx, http.MethodPatch, feedPath(args[0]), map[string]string{"description": description}, "changed")
		}),
	}
	command.Flags().StringVar(&description, "description", "", "`text` for people")
	_ = command.MarkFlagRequired("description")
	return command
}

func (p *program) feedGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Show a feed",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			return p.feedCall(ctx, http.MethodGet, feedPath(args[0]), nil, "")
		}),
	}
}

func (p *program) feedDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a feed that no subscriber follows",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			if _, err := c.Do(ctx, apiclient.Request{Method: http.MethodDelete, Path: feedPath(args[0])}, nil); err != nil {
				return err
			}
			return p.done("deleted feed "+args[0], map[string]string{"deleted": args[0]})
		}),
	}
}

func (p *program) feedListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the feeds",
		Args:  cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			feeds, raw, err := listAll[feedDocument](ctx, c, "/v1/feeds", "feeds", nil)
			if err != nil {
				return err
			}
			if p.json {
				return p.encode(map[string]any{"feeds": raw})
			}
			t := p.table("FEED", "HEAD", "FIRST", "SEQUENCES", "DESCRIPTION")
			for _, f := range feeds {
				t.row(f.Name, decimal(f.Head), decimal(f.FirstSequence), f.Sequences, f.Description)
			}
			return t.flush()
		}),
	}
}

func feedPath(name string) string { return "/v1/feeds/" + url.PathEscape(name) }

func (p *program) feedCall(ctx context.Context, method, path string, in any, done string) error {
	c, err := p.client(ctx)
	if err != nil {
		return err
	}
	r := apiclient.Request{Method: method, Path: path, In: in}
	if method == http.MethodPatch {
		r.ContentType = contentTypeMergePatch
	}
	var f feedDocument
	answer, err := c.Do(ctx, r, &f)
	if err != nil {
		return err
	}
	if p.json {
		return p.printJSON(answer.Body)
	}
	if done != "" {
		p.printf("%s feed %s\n", done, f.Name)
		return nil
	}
	t := p.table()
	t.row("feed", f.Name)
	t.row("sequences", f.Sequences)
	t.row("head", decimal(f.Head))
	t.row("first kept", decimal(f.FirstSequence))
	t.row("epoch", strconv.Itoa(f.Epoch))
	t.row("created", f.CreatedAt)
	if f.Description != "" {
		t.row("description", f.Description)
	}
	return t.flush()
}
