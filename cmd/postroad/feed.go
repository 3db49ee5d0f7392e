package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"postroad/internal/apiclient"
)

type feedDocument struct {
	Name        string `json:"name"`
	Sequences   string `json:"sequences"`
	Description string `json:"description"`
	Retention   struct {
		Age          string `json:"age"`
		HardAge      string `json:"hardAge"`
		CompactAfter string `json:"compactAfter"`
	} `json:"retention"`
	Source *struct {
		URL    string `json:"url"`
		Status struct {
			State     string `json:"state"`
			Reason    string `json:"reason"`
			Late      int64  `json:"late"`
			LastError string `json:"lastError"`
		} `json:"status"`
	} `json:"source"`
	Epoch            int    `json:"epoch"`
	Head             int64  `json:"head"`
	FirstSequence    int64  `json:"firstSequence"`
	CompactedThrough int64  `json:"compactedThrough"`
	CreatedAt        string `json:"createdAt"`
}

func (p *program) feedCommand() *cobra.Command {
	feed := &cobra.Command{Use: "feed", Short: "Create, list, show, change and delete feeds, erase what they hold of a record", Args: cobra.NoArgs, RunE: helpOnly}
	feed.AddCommand(p.feedCreateCommand(), p.feedListCommand(), p.feedGetCommand(), p.feedUpdateCommand(), p.feedEraseCommand(), p.feedDeleteCommand())
	return feed
}

// helpOnly is for commands that are only the place of others.
func helpOnly(command *cobra.Command, _ []string) error { return command.Help() }

func (p *program) feedCreateCommand() *cobra.Command {
	in := map[string]any{}
	var sequences, description string
	var kept retentionFlags
	command := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a feed",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			in["name"], in["sequences"] = args[0], sequences
			if description != "" {
				in["description"] = description
			}
			kept.put(in)
			return p.feedCall(ctx, http.MethodPost, "/v1/feeds", in, "created")
		}),
	}
	command.Flags().StringVar(&sequences, "sequences", "assigned", "who numbers the events: `assigned` by Postroad, or supplied by the publisher")
	command.Flags().StringVar(&description, "description", "", "`text` for people")
	kept.add(command.Flags())
	return command
}

// retentionFlags say how long a feed keeps its events; "" says nothing.
type retentionFlags struct{ age, hardAge, compactAfter string }

const forEver = "never"

func (f *retentionFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.age, "retention-age", "", "remove events that old once no subscriber is owed them: a `time` from 1m on, as in 30d, or never")
	flags.StringVar(&f.hardAge, "retention-hard-age", "", "remove events that old even if subscribers are owed them: a `time`, or never")
	flags.StringVar(&f.compactAfter, "compact-after", "", "keep only the newest event of each record of those that old, once no subscriber is owed the others: a `time`, or never")
}

// put puts what was said into a document.
func (f *retentionFlags) put(document map[string]any) {
	kept := map[string]any{}
	for member, value := range map[string]string{"age": f.age, "hardAge": f.hardAge, "compactAfter": f.compactAfter} {
		switch value {
		case "":
		case forEver:
			kept[member] = nil
		default:
			kept[member] = value
		}
	}
	if len(kept) > 0 {
		document["retention"] = kept
	}
}

func (p *program) feedUpdateCommand() *cobra.Command {
	var description string
	var kept retentionFlags
	command := &cobra.Command{
		Use:   "update NAME",
		Short: "Change a feed's description, or how long it keeps events",
		Args:  cobra.ExactArgs(1),
	}
	command.RunE = p.action(func(ctx context.Context, args []string) error {
		in := map[string]any{}
		if command.Flags().Changed("description") {
			in["description"] = description
		}
		kept.put(in)
		if len(in) == 0 {
			return usagef("nothing to change: give --description, --retention-age, --retention-hard-age or --compact-after")
		}
		return p.feedCall(ctx, http.MethodPatch, feedPath(args[0]), in, "changed")
	})
	command.Flags().StringVar(&description, "description", "", "`text` for people")
	kept.add(command.Flags())
	return command
}

func (p *program) feedEraseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "erase FEED RESOURCE KEY",
		Short: "Erase the data of all events of a record; the events themselves stay",
		Args:  cobra.ExactArgs(3),
		RunE: p.action(func(ctx context.Context, args []string) error {
			c, err := p.client(ctx)
			if err != nil {
				return err
			}
			var erased struct{ Events, Excerpts int64 }
			path := feedPath(args[0]) + "/records/" + url.PathEscape(args[1]) + "/" + url.PathEscape(args[2]) + "/data"
			answer, err := c.Do(ctx, apiclient.Request{Method: http.MethodDelete, Path: path}, &erased)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(answer.Body)
			}
			p.printf("erased the data of %s and %s to them\n", count(erased.Events, "event"), count(erased.Excerpts, "answer"))
			return nil
		}),
	}
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
	if f.Source != nil {
		t.row("source", f.Source.URL)
		t.row("source state", f.Source.Status.State+": "+f.Source.Status.Reason)
		if f.Source.Status.LastError != "" {
			t.row("source error", f.Source.Status.LastError)
		}
	}
	if f.Retention.Age != "" {
		t.row("retention", f.Retention.Age)
	}
	if f.Retention.HardAge != "" {
		t.row("hard retention", f.Retention.HardAge)
	}
	if f.Retention.CompactAfter != "" {
		t.row("compacted after", f.Retention.CompactAfter)
	}
	if f.CompactedThrough != 0 {
		t.row("compacted through", decimal(f.CompactedThrough))
	}
	return t.flush()
}
