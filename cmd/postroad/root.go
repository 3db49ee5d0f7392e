package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootLong = `Postroad delivers events to HTTP endpoints: durably, in order, politely.

Start with "postroad demo" (it shows itself and cleans up) or "postroad dev"
(a stack to work with). The other commands talk to a running server. They find
it by --server or POSTROAD_URL, else by what a running stack left in .postroad or
.postroad/demo, in this directory or one above it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict,
5 unavailable.`

// Groups of commands in the help.
const (
	groupServers = "servers"
	groupClients = "clients"
)

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:               "postroad",
		Short:             "Durable, ordered delivery of events to HTTP endpoints",
		Long:              rootLong,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return command.Help()
		},
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().BoolVar(&p.json, "json", false, "write JSON for programs, errors too")
	root.AddGroup(&cobra.Group{ID: groupServers, Title: "Servers:"}, &cobra.Group{ID: groupClients, Title: "Clients of a running server:"})
	for _, command := range []*cobra.Command{p.demoCommand(), p.devCommand(), p.apiCommand(), p.workerCommand(), p.migrateCommand(), p.doctorCommand()} {
		command.GroupID = groupServers
		root.AddCommand(command)
	}
	for _, command := range []*cobra.Command{
		p.feedCommand(), p.publishCommand(), p.mirrorCommand(), p.subscriberCommand(), p.attemptsCommand(), p.explainCommand(), p.statusCommand(), p.waitCommand(),
		p.tokenCommand(), p.tailCommand(),
	} {
		command.GroupID = groupClients
		p.serverFlags(command.PersistentFlags())
		root.AddCommand(command)
	}
	root.AddCommand(p.listenCommand(), p.benchCommand(), p.benchReceiverCommand(), p.benchPublisherCommand(), p.benchRouteCommand(),
		p.benchNaiveCommand(), p.healthcheckCommand(), p.versionCommand())
	return root
}

// serverFlags are those of the clients. It is not --url, which a subscriber's
// endpoint is easily taken for: the token must not go there.
func (p *program) serverFlags(flags *pflag.FlagSet) {
	flags.StringVar(&p.url, "server", "", "the server's `URL` (POSTROAD_URL)")
	flags.StringVar(&p.tokenFile, "token-file", "", "`file` with the bearer token (POSTROAD_TOKEN_FILE; POSTROAD_TOKEN is the token itself)")
	flags.StringVar(&p.dataDir, "data-dir", "", "data `directory` of a running stack to take address and token from (POSTROAD_DATA_DIR)")
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p.started = true
			v := buildVersion()
			if p.json {
				return p.encode(v)
			}
			p.printf("postroad %s", v.Version)
			if v.Revision != "" {
				p.printf(" (%s)", v.Revision)
			}
			p.printf(", %s\n", v.Go)
			return nil
		},
	}
}

// releaseVersion is the version this source becomes; a release sets it to its
// own when it links (deploy/release), which sets variables only.
var releaseVersion = "0.1.0-dev"

type versionDocument struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func buildVersion() versionDocument {
	v := versionDocument{Version: releaseVersion}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if v.Revision != "" && modified {
		v.Revision += ", modified"
	}
	return v
}

func version() string { return buildVersion().Version }
