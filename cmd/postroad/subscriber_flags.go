package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"postroad/event"
)

// documentBytesMax bounds a configuration read from a file.
const documentBytesMax = 1 << 20

// subscriberFlags make a subscriber's configuration, or a merge patch of it,
// from flags and a file. A flag that is not given is not in the document.
type subscriberFlags struct {
	file string

	endpoint, timeout, label, labelHeader, format string
	headers                                       []string
	batchSize, lanes, onExhausted, compact        string
	batchBytes                                    int
	resourceNames, eventTypes, schedule           []string
	giveUpAfter, maxRetryAfter                    string
	eventAttempts                                 int
	bearerTokenFile, signing, signingSecretFile   string
	owner, description, alertLag                  string
	mode, leaseDuration                           string
	leases                                        int

	feed, start string
}

// add adds the flags that creating and updating have in common.
func (s *subscriberFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.file, "file", "", "JSON `file` with the configuration, - for standard input; flags go before it")
	f.StringVar(&s.endpoint, "endpoint", "", "where the events go, a `URL`")
	f.StringVar(&s.mode, "mode", "", "`push`, or pull: the consumer fetches its events and commits them")
	f.StringVar(&s.leaseDuration, "lease-duration", "", "of mode pull: how long what was fetched is nobody else's, `1s-10m`")
	f.IntVar(&s.leases, "leases", 0, "of mode pull: how many `leases` may be out at once, 1-16; with 1 everything comes in order")
	f.StringVar(&s.timeout, "timeout", "", "the longest a request may take, `1s-60s`")
	f.StringArrayVar(&s.headers, "header", nil, "`\"Name: value\"` sent with every request; may be given more than once")
	f.StringVar(&s.label, "label", "", "the source `label` sent with every request")
	f.StringVar(&s.labelHeader, "label-header", "", "EntityEventSource, ConsumerLabel or both")
	f.StringVar(&s.format, "format", "", "reso or raw")
	f.StringVar(&s.batchSize, "batch-size", "", "the most `events` in one request, 1-1000, or auto")
	f.StringVar(&s.lanes, "lanes", "", "the most `requests` at once, 1-64, or auto; events of one record are never in two of them")
	f.IntVar(&s.batchBytes, "batch-bytes", 0, "the most `bytes` in one request")
	f.StringSliceVar(&s.resourceNames, "resource", nil, "only events of these resource `names`; * may end one")
	f.StringSliceVar(&s.eventTypes, "type", nil, "only events of these `types`; * may end one")
	f.StringSliceVar(&s.schedule, "schedule", nil, "waits after failures in a row, as in `5s,30s,2m`")
	f.StringVar(&s.giveUpAfter, "give-up-after", "", "how long the endpoint may fail before delivery halts, as in `7d`")
	f.StringVar(&s.maxRetryAfter, "max-retry-after", "", "the longest wait the consumer may ask for, as in `24h`")
	f.IntVar(&s.eventAttempts, "event-attempts", 0, "`requests` one refused event gets")
	f.StringVar(&s.onExhausted, "on-exhausted", "", "what becomes of an event that is refused so often: `halt`, hold (its record waits) or skip (it is given up)")
	f.StringVar(&s.compact, "compact", "", "catchUp: while far behind, send only the newest event of each record; or `never`")
	f.StringVar(&s.bearerTokenFile, "bearer-token-file", "", "`file` with a bearer token for the endpoint")
	f.StringVar(&s.signing, "signing", "", "standard, svix or none")
	f.StringVar(&s.signingSecretFile, "signing-secret-file", "", "`file` with a signing secret of your own (whsec_...)")
	f.StringVar(&s.alertLag, "alert-lag", "", "tell on the feed _system when it is behind by more than that `time`, as in 5m, or never")
	f.StringVar(&s.owner, "owner", "", "whose it is, in your own `words`")
	f.StringVar(&s.description, "description", "", "what it is for, in your own `words`")
}

// addFixed adds what cannot be changed later.
func (s *subscriberFlags) addFixed(f *pflag.FlagSet) {
	f.StringVar(&s.feed, "feed", "", "the `feed` to follow (the server's default is default)")
	f.StringVar(&s.start, "start", "", "`now`, beginning, or a sequence: the first event sent is the first above it")
}

// document is the configuration: the file, with what the flags say laid over
// it.
func (s *subscriberFlags) document(p *program, flags *pflag.FlagSet) (map[string]any, error) {
	document := map[string]any{}
	if s.file != "" {
		if err := p.readDocument(s.file, &document); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		flag  string
		path  []string
		value any
	}{
		{"endpoint", []string{"endpoint", "url"}, s.endpoint},
		{"mode", []string{"mode"}, s.mode},
		{"lease-duration", []string{"pull", "leaseDuration"}, s.leaseDuration},
		{"leases", []string{"pull", "leases"}, s.leases},
		{"timeout", []string{"endpoint", "timeout"}, s.timeout},
		{"label", []string{"label"}, s.label},
		{"label-header", []string{"labelHeader"}, s.labelHeader},
		{"format", []string{"format"}, s.format},
		{"batch-bytes", []string{"batchBytes"}, s.batchBytes},
		{"resource", []string{"filter", "resourceNames"}, s.resourceNames},
		{"type", []string{"filter", "eventTypes"}, s.eventTypes},
		{"schedule", []string{"retry", "schedule"}, s.schedule},
		{"give-up-after", []string{"retry", "giveUpAfter"}, s.giveUpAfter},
		{"max-retry-after", []string{"retry", "maxRetryAfter"}, s.maxRetryAfter},
		{"event-attempts", []string{"retry", "eventAttempts"}, s.eventAttempts},
		{"on-exhausted", []string{"onExhausted"}, s.onExhausted},
		{"signing", []string{"signing", "scheme"}, s.signing},
		{"owner", []string{"owner"}, s.owner},
		{"description", []string{"description"}, s.description},
		{"feed", []string{"feed"}, s.feed},
	} {
		if !flags.Changed(m.flag) {
			continue
		}
		if err := put(document, m.value, m.path...); err != nil {
			return nil, err
		}
	}
	return document, s.putRest(p, document)
}

// putRest lays over what is more than a plain member.
func (s *subscriberFlags) putRest(p *program, document map[string]any) error {
	var errs []error
	for _, header := range s.headers {
		name, value, ok := strings.Cut(header, ":")
		if !ok {
			return usagef("--header %q has no colon: write it as \"Name: value\"", header)
		}
		errs = append(errs, put(document, strings.TrimSpace(value), "endpoint", "headers", strings.TrimSpace(name)))
	}
	if s.bearerTokenFile != "" {
		token, err := p.readSecret(s.bearerTokenFile)
		errs = append(errs, err, put(document, "bearer", "auth", "type"), put(document, token, "auth", "token"))
	}
	if s.signingSecretFile != "" {
		secret, err := p.readSecret(s.signingSecretFile)
		errs = append(errs, err, put(document, secret, "signing", "secret"))
	}
	for _, m := range []struct{ flag, member, text string }{{"batch-size", "batchSize", s.batchSize}, {"lanes", "lanes", s.lanes}} {
		switch n, err := strconv.ParseInt(m.text, 10, 64); {
		case m.text == "":
		case m.text == event.Auto.String():
			errs = append(errs, put(document, m.text, m.member))
		case err != nil:
			return usagef("--%s %q is neither a number nor auto", m.flag, m.text)
		default:
			errs = append(errs, put(document, n, m.member))
		}
	}
	switch s.compact {
	case "":
	case forEver:
		errs = append(errs, put(document, nil, "compact"))
	default:
		errs = append(errs, put(document, s.compact, "compact"))
	}
	switch s.alertLag {
	case "":
	case forEver:
		errs = append(errs, put(document, nil, "alert"))
	default:
		lag, err := event.ParseDuration(s.alertLag)
		if err != nil || lag%event.Duration(time.Second) != 0 {
			return usagef("--alert-lag %q is no number of whole seconds, such as 90s or 5m", s.alertLag)
		}
		errs = append(errs, put(document, int64(lag.Std().Seconds()), "alert", "lagSeconds"))
	}
	switch s.start {
	case "":
	case "now", "beginning":
		errs = append(errs, put(document, s.start, "start"))
	default:
		sequence, err := strconv.ParseInt(s.start, 10, 64)
		if err != nil {
			return usagef("--start %q is neither now, beginning nor a sequence", s.start)
		}
		errs = append(errs, put(document, map[string]any{"sequence": sequence}, "start"))
	}
	return errors.Join(errs...)
}

// put sets the member at path, making the objects on the way.
func put(document map[string]any, value any, path ...string) error {
	for _, name := range path[:len(path)-1] {
		inner, ok := document[name]
		if !ok || inner == nil {
			inner = map[string]any{}
			document[name] = inner
		}
		object, ok := inner.(map[string]any)
		if !ok {
			return usagef("the file's member %s is no object", name)
		}
		document = object
	}
	document[path[len(path)-1]] = value
	return nil
}

// readDocument reads a JSON object from a file or standard input.
func (p *program) readDocument(name string, document *map[string]any) error {
	input, _, closeInput, err := p.openInput(name)
	if err != nil {
		return err
	}
	defer closeInput()
	decoder := json.NewDecoder(io.LimitReader(input, documentBytesMax))
	decoder.UseNumber()
	if err := decoder.Decode(document); err != nil || *document == nil {
		return usagef("%s is not a JSON object: %v", name, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return usagef("%s holds more than one JSON object", name)
	}
	return nil
}

// readSecret reads a secret: a flag's value would be seen in the list of
// processes.
func (p *program) readSecret(name string) (string, error) {
	path, err := p.path(name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
