package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/apiclient"
	"postroad/mirror"
)

// mirrorFlags say what is mirrored.
type mirrorFlags struct {
	feed             string
	tokenFile        string
	tokenURL         string
	clientID         string
	clientSecretFile string
	scope            string
	config           mirror.Config
}

func (p *program) mirrorCommand() *cobra.Command {
	f := &mirrorFlags{}
	command := &cobra.Command{
		Use:   "mirror --from SERVICE-ROOT --feed FEED",
		Short: "Follow a RESO server's EntityEvent resource into a feed",
		Long: `Follow the EntityEvent resource of a RESO Web API server (RCP-27) into a feed, under
the sequences that the server gave. What is in the feed is delivered to its
subscribers as everything else: a server that can only be polled gets webhooks.

The feed is made if it does not exist; one that exists must take its sequences
from the publisher. All the command remembers is the feed's head: it can be
killed at any time and started again, and loses and repeats nothing.

A number behind a gap is taken once it or a higher one has been in sight for
--horizon, as the gap may be a transaction that is not committed yet. What comes
later still cannot be added any more: it is looked for in the latest
--recheck-sequences numbers every --recheck, and at the end of --once, and told.

Retry-After is obeyed, faults are tried again with growing pauses. With a token
for Postroad of its own the command needs the role admin to make the feed, or
to read and publish to it.`,
		Example: `  postroad mirror --from https://api.example.org/reso/odata --feed mls \
    --token-url https://api.example.org/oauth/token --client-id me --client-secret-file secret --scope api
  postroad mirror --from https://api.example.org/reso/odata --feed mls --source-token-file token --once`,
		Annotations: map[string]string{envFlags: "source-token-file client-secret-file"},
		Args:        cobra.NoArgs,
		RunE:        p.action(func(ctx context.Context, _ []string) error { return p.mirror(ctx, f) }),
	}
	flags, defaults := command.Flags(), mirror.Config{}.WithDefaults()
	flags.StringVar(&f.config.Root, "from", "", "the server's service root, a `URL`; /EntityEvent below it is read")
	flags.StringVar(&f.feed, "feed", "", "the `feed` to publish to")
	flags.StringVar(&f.tokenFile, "source-token-file", "", "`file` with the server's bearer token")
	flags.StringVar(&f.tokenURL, "token-url", "", "where the server gives access tokens for client credentials, a `URL`")
	flags.StringVar(&f.clientID, "client-id", "", "the `id` for --token-url")
	flags.StringVar(&f.clientSecretFile, "client-secret-file", "", "`file` with the secret for --token-url")
	flags.StringVar(&f.scope, "scope", "", "the `scope` to ask --token-url for")
	flags.BoolVar(&f.config.Once, "once", false, "end when all is there that the server had at the start")
	flags.DurationVar(&f.config.Horizon, "horizon", defaults.Horizon, "for how long a number behind a gap is in sight before it is taken; 0: none")
	flags.DurationVar(&f.config.Poll, "poll", defaults.Poll, "pause at the server's end")
	flags.DurationVar(&f.config.Recheck, "recheck", defaults.Recheck, "how often to look for what came late")
	flags.Int64Var(&f.config.RecheckSequences, "recheck-sequences", defaults.RecheckSequences, "how many of the latest numbers that looks at")
	flags.IntVar(&f.config.PageSize, "page-size", defaults.PageSize, "how many events to ask for at once")
	flags.DurationVar(&f.config.RequestTimeout, "timeout", defaults.RequestTimeout, "bound of one request")
	flags.IntVar(&f.config.FaultsMax, "give-up-after", 0, "end after so many faults in a row; 0: never, and 10 with --once")
	return command
}

// check completes the configuration from what the flags say.
func (f *mirrorFlags) check(p *program) error {
	c := &f.config
	switch {
	case c.Root == "" || f.feed == "":
		return usagef("--from and --feed are needed")
	case f.tokenFile != "" && f.tokenURL != "":
		return usagef("--source-token-file and --token-url exclude each other")
	case (f.tokenURL == "") != (f.clientID == "") || (f.tokenURL == "") != (f.clientSecretFile == ""):
		return usagef("--token-url, --client-id and --client-secret-file go together")
	case c.Horizon < 0 || c.Poll <= 0 || c.Recheck <= 0 || c.RecheckSequences < 0 || c.PageSize < 1 || c.RequestTimeout <= 0 || c.FaultsMax < 0:
		return usagef("--horizon, --poll, --recheck, --recheck-sequences, --page-size, --timeout and --give-up-after must not be below what they can be")
	}
	if _, err := mirror.ParseRoot(c.Root); err != nil {
		return usagef("--from %w", err)
	}
	if c.Horizon == 0 {
		c.Horizon = -1 // none; zero is the default
	}
	if c.Once {
		c.FaultsMax = cmp.Or(c.FaultsMax, 10)
	}
	c.Auth = mirror.Auth{TokenURL: f.tokenURL, ClientID: f.clientID, Scope: f.scope}
	for file, to := range map[string]*string{f.tokenFile: &c.Auth.Token, f.clientSecretFile: &c.Auth.ClientSecret} {
		if file == "" {
			continue
		}
		var err error
		if *to, err = p.readSecret(file); err != nil {
			return err
		}
	}
	c.StopOnFault, c.UserAgent = true, "postroad/"+version()
	c.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

func (p *program) mirror(ctx context.Context, f *mirrorFlags) error {
	if err := f.check(p); err != nil {
		return err
	}
	c, err := p.client(ctx)
	if err != nil {
		return err
	}
	feed := &clientFeed{client: c, name: f.feed}
	head, err := feed.open(ctx)
	if err != nil {
		return err
	}
	shown := &mirrorShown{program: p, feed: f.feed, head: head}
	f.config.Observer = shown.observer()
	f.config.Logger = slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := mirror.New(f.config, feed)
	if err != nil {
		return err
	}
	p.tell(fmt.Sprintf("mirroring %s into feed %s, above sequence %d", f.config.Root, f.feed, head))
	err = m.Run(ctx)
	shown.end()
	var conflict *apiclient.Problem
	switch {
	case errors.Is(err, mirror.ErrConflict) && errors.As(err, &conflict):
		return fmt.Errorf("%w\nonly one source may publish to the feed", conflict)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil // Ctrl-C ends it
	}
	return err
}

// mirrorShown prints what a mirror does: lines for people, not more of them than
// they can read, and a document each for programs.
type mirrorShown struct {
	program *program
	feed    string
	head    int64
	taken   int64
	late    int64
	// told is when progress was last told, and up to where.
	told     time.Time
	toldHead int64
}

// progressEvery is how often people are told how far a long initial sync is.
const progressEvery = 5 * time.Second

func (s *mirrorShown) observer() mirror.Observer {
	s.told, s.toldHead = time.Now(), s.head
	return mirror.Observer{
		Taken: func(count int, head int64) {
			s.taken, s.head = s.taken+int64(count), head
			if time.Since(s.told) > progressEvery {
				s.progress("taken", 0)
			}
		},
		Read: func(head, sourceHead int64) {
			if s.head = head; s.head != s.toldHead {
				s.progress("read", sourceHead)
			}
		},
		Late: func(l mirror.Late) {
			s.late++
			s.line("LATE: "+l.String()+"; the feed cannot take it", map[string]any{"late": map[string]any{
				"sequence": l.Event.Sequence, "resourceName": l.Event.ResourceName, "resourceRecordKey": l.Event.ResourceRecordKey, "detail": l.String(),
			}})
		},
		Fault: func(err error, retryIn time.Duration) {
			s.line(fmt.Sprintf("%s; again in %s", err, retryIn.Round(time.Millisecond)), map[string]any{"fault": err.Error(), "retryIn": retryIn.String()})
		},
	}
}

func (s *mirrorShown) progress(what string, sourceHead int64) {
	s.told, s.toldHead = time.Now(), s.head
	text := fmt.Sprintf("%s, feed %s is at sequence %d", count(s.taken, "event"), s.feed, s.head)
	if sourceHead > s.head {
		text += fmt.Sprintf("; up to %d wait for the horizon", sourceHead)
	}
	s.line(text, map[string]any{what: s.taken, "head": s.head, "sourceHead": sourceHead})
}

func (s *mirrorShown) end() {
	text := fmt.Sprintf("%s taken, feed %s is at sequence %d", count(s.taken, "event"), s.feed, s.head)
	if s.late > 0 {
		text += fmt.Sprintf("; %s came late and are missing, or changed", count(s.late, "event"))
	}
	s.line(text, map[string]any{"taken": s.taken, "head": s.head, "late": s.late, "ended": true})
}

func (s *mirrorShown) line(text string, document map[string]any) {
	if s.program.json {
		_ = s.program.encodeLine(document) // a reader that went away ends us by its own signal
		return
	}
	s.program.printf("%s\n", text)
}
