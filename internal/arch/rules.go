package arch

import (
	"slices"
	"strings"
)

// floor says what one part of the house may import of the others.
type floor struct {
	// may lists the parts that its source may import; a part may always import
	// itself.
	may []string
	// tests lists what its external tests may import besides.
	tests []string
	// internal admits every internal package but testkit.
	internal bool
	// reason is why all the rest is forbidden.
	reason string
}

// floors is the layering: five floors, and no arrow runs back up. A part that
// is not in it may import nothing of ours and be imported by nobody, so a new
// folder has to be entered here first.
var floors = map[string]floor{
	"cmd": {
		may:      []string{"api", "worker", "embedded", "bench", "consumer", "contract", "mirror", "eventlog", "store", "event"},
		internal: true,
		reason:   "cmd puts services together; what workflows and activities do is reached through worker only",
	},
	"api": {
		may:      []string{"console", "contract", "delivery", "eventlog", "store", "event"},
		internal: true,
		reason:   "the API starts workflows by contract name, so that an api process carries no workflow code",
	},
	"console": {
		internal: true,
		reason:   "the console renders what the API hands it",
	},
	"worker": {
		may:      []string{"workflows", "activities", "contract", "mirror", "eventlog", "store", "event"},
		internal: true,
		reason:   "the worker registers workflows and activities; HTTP in either direction is theirs or the API's",
	},
	"workflows": {
		may:    []string{"contract", "event"},
		reason: "workflow code is replayed: it may reach nothing that does I/O",
	},
	"activities": {
		may:      []string{"contract", "delivery", "eventlog", "store", "event"},
		internal: true,
		reason:   "activities know neither who calls them nor the API",
	},
	"delivery": {
		may:      []string{"event"},
		internal: true,
		reason:   "delivery turns events into HTTP; what to send and what to remember is its caller's",
	},
	"mirror": {
		may: []string{"event"}, tests: []string{"eventlog"},
		internal: true,
		reason:   "a mirror reads other people's servers; where its events go is its caller's",
	},
	"eventlog": {
		may:      []string{"event"},
		internal: true,
		reason:   "the log knows no subscribers: siblings never import each other",
	},
	"store": {
		may:      []string{"event"},
		internal: true,
		reason:   "the store knows neither Temporal nor the log: siblings never import each other",
	},
	"contract": {
		may:      []string{"event"},
		internal: true,
		reason:   "the contract is a leaf that both ends of Temporal import",
	},
	"event":    {reason: "the domain is the standard library only"},
	"consumer": {reason: "consumers import this package: it drags nothing into their build"},
	"embedded": {internal: true, reason: "the one-process stack runs other people's servers and knows nothing of ours"},
	"bench":    {internal: true, reason: "the benchmark drives processes over HTTP, as a user would"},
	"examples": {
		may: []string{"consumer"}, tests: []string{"delivery", "event"},
		reason: "an example shows what a user can do from outside; its tests show it to the real thing",
	},
}

const (
	temporalServer = "go.temporal.io/server"
	temporalUI     = "github.com/temporalio/ui-server"
	testkit        = "internal/testkit"
)

// linksServer names the parts whose tests may link the Temporal server: 216 MB
// and seven seconds a link, so the others test against PostgreSQL alone or
// against the SDK's test environment.
var linksServer = []string{"embedded", "worker", "cmd"}

// judgeOwn judges an import of another part of this module.
func judgeOwn(who importer, imported string) string {
	if who.area == imported {
		return ""
	}
	toInternal := strings.HasPrefix(imported, "internal")
	switch {
	case imported == testkit:
		return judgeTestkit(who)
	case who.kind == externalTest && imported == "store":
		return "" // for its migrations
	case who.test() && imported == "embedded" && slices.Contains(linksServer, who.area):
		return ""
	case strings.HasPrefix(who.area, "internal/") && !toInternal:
		return "internal packages are support: they import nothing of ours above them"
	case strings.HasPrefix(who.area, "internal/"):
		return ""
	}
	f, known := floors[who.area]
	switch {
	case !known:
		return "the folder is in no floor: enter it in internal/arch/rules.go first"
	case toInternal && f.internal, slices.Contains(f.may, imported):
		return ""
	case who.kind == externalTest && slices.Contains(f.tests, imported):
		return ""
	}
	return f.reason
}

// judgeTestkit keeps test support out of the product, and out of in-package
// tests, where it could close an import cycle.
func judgeTestkit(who importer) string {
	if who.kind == externalTest {
		return ""
	}
	return "testkit is for external test packages only: nothing of it may reach a binary"
}

// foreignRule forbids modules of other people to parts of the house.
type foreignRule struct {
	// prefix is the import path, itself and everything below it.
	prefix string
	// only lists the parts that may import it all the same.
	only []string
	// tests lists the parts whose tests may.
	tests []string
	// internal admits the internal packages.
	internal bool
	reason   string
}

// everyTest stands for the tests of all parts.
var everyTest = []string{"*"}

var foreignRules = []foreignRule{
	{
		prefix: temporalServer, only: []string{"embedded"}, tests: linksServer,
		reason: "only embedded links the Temporal server, so that the slim build can leave it out",
	},
	{
		prefix: temporalUI, only: []string{"embedded"}, tests: linksServer,
		reason: "only embedded links the Temporal UI, so that the slim build can leave it out",
	},
	{
		prefix: "go.temporal.io/", tests: everyTest, internal: true,
		only:   []string{"embedded", "workflows", "activities", "worker", "api", "cmd", "bench"},
		reason: "the log, the store, delivery and the contract work without Temporal",
	},
	{
		prefix: "github.com/gin-gonic/gin", only: []string{"api", "console"}, tests: everyTest,
		reason: "gin's context stays in the API",
	},
	{
		prefix: "github.com/jackc/pgx", tests: everyTest, internal: true,
		only:   []string{"eventlog", "store", "activities", "worker", "api", "cmd", "bench", "embedded"},
		reason: "delivery, workflows and the contract reach no database",
	},
	{
		// The test environment of Temporal's SDK matches arguments with it.
		prefix: "github.com/stretchr/testify/mock", tests: []string{"workflows", "worker"},
		reason: "tests use the real thing, not mocks",
	},
	{
		prefix: "github.com/stretchr/testify",
		reason: "tests compare with go-cmp and say in their own words what is wrong",
	},
}

// impureForWorkflows are packages of the standard library whose results differ
// from one replay to the next, or that reach outside. The static check of the
// SDK finds calls; this finds the import.
var impureForWorkflows = []string{
	"net", "os", "database/sql", "math/rand", "crypto/rand", "syscall", "os/exec", "os/signal", "sync", "log",
}

// judgeForeign judges an import of the standard library or another module.
func judgeForeign(who importer, imported string) string {
	standard := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
	if standard {
		if who.area == "workflows" && !who.test() && slices.ContainsFunc(impureForWorkflows, func(p string) bool { return below(imported, p) }) {
			return "workflow code is replayed: chance, clocks, goroutines and I/O come from the SDK"
		}
		return ""
	}
	if (who.area == "event" || who.area == "consumer") && !who.test() {
		return floors[who.area].reason
	}
	for _, r := range foreignRules {
		if !below(imported, r.prefix) {
			continue
		}
		switch {
		case slices.Contains(r.only, who.area), r.internal && strings.HasPrefix(who.area, "internal/"):
			return ""
		case who.test() && (slices.Contains(r.tests, "*") || slices.Contains(r.tests, who.area)):
			return ""
		}
		return r.reason
	}
	return ""
}

// below reports whether the import path is prefix or lies below it.
func below(imported, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}
