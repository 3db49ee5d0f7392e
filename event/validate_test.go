package event_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
)

// valid is a subscriber with nothing wrong.
func valid() event.Subscriber {
	s := event.Subscriber{ID: "acme", Endpoint: event.Endpoint{URL: "https://acme.example/hook?tenant=1"}}
	return s.Defaulted()
}

func headers(n int) map[string]string {
	m := make(map[string]string, n)
	for i := range n {
		m[fmt.Sprintf("X-%d", i)] = "v"
	}
	return m
}

func steps(n int, step event.Duration) []event.Duration {
	list := make([]event.Duration, n)
	for i := range list {
		list[i] = step
	}
	return list
}

func names(n int) []string { return strings.Fields(strings.Repeat("name ", n)) }

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	for reason, change := range map[string]func(*event.Subscriber){
		"the defaults":              func(*event.Subscriber) {},
		"the longest id":            func(s *event.Subscriber) { s.ID = "A" + strings.Repeat("_", 31) + strings.Repeat("-", 31) },
		"the built-in feed":         func(s *event.Subscriber) { s.Feed = "_system" },
		"the longest alert":         func(s *event.Subscriber) { s.Alert = &event.Alert{LagSeconds: 30 * 86400} },
		"the longest feed name":     func(s *event.Subscriber) { s.Feed = "0" + strings.Repeat("-", 62) },
		"a port":                    func(s *event.Subscriber) { s.Endpoint.URL = "https://acme.example:8443/" },
		"an IPv6 host":              func(s *event.Subscriber) { s.Endpoint.URL = "https://[2001:db8::1]:8443/" },
		"an at sign in the path":    func(s *event.Subscriber) { s.Endpoint.URL = "https://acme.example/@acme" },
		"upper case in the scheme":  func(s *event.Subscriber) { s.Endpoint.URL = "HTTPS://acme.example" },
		"a label of 255 characters": func(s *event.Subscriber) { s.Label = strings.Repeat("é", 255) },
		"a tab in a header":         func(s *event.Subscriber) { s.Endpoint.Headers = map[string]string{"X-A": "a\tb"} },
		"32 headers":                func(s *event.Subscriber) { s.Endpoint.Headers = headers(32) },
		"a header sent and kept":    func(s *event.Subscriber) { s.Endpoint.Headers = headers(32); s.Endpoint.HeadersSet = []string{"x-0"} },
		"the bounds of timeout":     func(s *event.Subscriber) { s.Endpoint.Timeout = event.TimeoutMax },
		"batches of 1,000":          func(s *event.Subscriber) { s.BatchSize, s.BatchBytes = 1000, 8<<20 },
		"64 lanes":                  func(s *event.Subscriber) { s.Lanes, s.BatchSize = 64, 156 },
		"10 lanes of 1,000":         func(s *event.Subscriber) { s.Lanes, s.BatchSize = 10, 1000 },
		"auto lanes of 1,000":       func(s *event.Subscriber) { s.Lanes, s.BatchSize = event.Auto, 1000 },
		"64 lanes of auto":          func(s *event.Subscriber) { s.Lanes, s.BatchSize = 64, event.Auto },
		"auto lanes of auto":        func(s *event.Subscriber) { s.Lanes, s.BatchSize = event.Auto, event.Auto },
		"hold":                      func(s *event.Subscriber) { s.OnExhausted = event.OnExhaustedHold },
		"skip":                      func(s *event.Subscriber) { s.OnExhausted = event.OnExhaustedSkip },
		"compaction":                func(s *event.Subscriber) { s.Compact = event.CompactCatchUp },
		"a start at 0":              func(s *event.Subscriber) { s.Start = event.Start{Where: "sequence"} },
		"20 steps of 24 h":          func(s *event.Subscriber) { s.Retry.Schedule = steps(20, event.Day) },
		"one step of 1 ms":          func(s *event.Subscriber) { s.Retry.Schedule = steps(1, event.Duration(time.Millisecond)) },
		"one attempt":               func(s *event.Subscriber) { s.Retry.EventAttempts = 1 },
		"a filter with stars":       func(s *event.Subscriber) { s.Filter = event.Filter{ResourceNames: []string{"Prop*", "*"}} },
		"a bearer token":            func(s *event.Subscriber) { s.Auth = event.Auth{Type: "bearer", Token: "t"} },
		"a stored bearer token":     func(s *event.Subscriber) { s.Auth = event.Auth{Type: "bearer", TokenSet: true} },
		"basic without a password":  func(s *event.Subscriber) { s.Auth = event.Auth{Type: "basic", Username: "u"} },
		"header auth":               func(s *event.Subscriber) { s.Auth = event.Auth{Type: "header", Name: "X-Api-Key", Value: "v"} },
		"header auth as Authorization": func(s *event.Subscriber) {
			s.Auth = event.Auth{Type: "header", Name: "Authorization", Value: "ApiKey v"}
		},
		"a signing secret of 24 bytes":   func(s *event.Subscriber) { s.Signing.Secret = "whsec_" + strings.Repeat("AAAA", 8) },
		"one of 64, without the prefix":  func(s *event.Subscriber) { s.Signing.Secret = strings.Repeat("AAAA", 21) + "AA==" },
		"another scheme, label and form": func(s *event.Subscriber) { s.Signing.Scheme, s.LabelHeader, s.Format = "svix", "both", "raw" },
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := valid()
			change(&s)
			if errs := s.Validate(false); len(errs) > 0 {
				t.Errorf("refused: %v", errs)
			}
		})
	}
}

// TestValidateRefuses: each row is one thing wrong, and the answer names that
// member and no other.
func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	endpoint := func(url string) func(*event.Subscriber) {
		return func(s *event.Subscriber) { s.Endpoint.URL = url }
	}
	header := func(name, value string) func(*event.Subscriber) {
		return func(s *event.Subscriber) { s.Endpoint.Headers = map[string]string{name: value} }
	}
	for reason, row := range map[string]struct {
		pointer string
		change  func(*event.Subscriber)
	}{
		"no id":                         {"/id", func(s *event.Subscriber) { s.ID = "" }},
		"a slash in the id":             {"/id", func(s *event.Subscriber) { s.ID = "a/b" }},
		"a dot in the id":               {"/id", func(s *event.Subscriber) { s.ID = "a.b" }},
		"a line break after the id":     {"/id", func(s *event.Subscriber) { s.ID = "a\n" }},
		"a NUL in the id":               {"/id", func(s *event.Subscriber) { s.ID = "a\x00" }},
		"an id that starts with -":      {"/id", func(s *event.Subscriber) { s.ID = "-a" }},
		"a letter of another script":    {"/id", func(s *event.Subscriber) { s.ID = "é" }},
		"an id of 64 characters":        {"/id", func(s *event.Subscriber) { s.ID = strings.Repeat("a", 64) }},
		"upper case in the feed":        {"/feed", func(s *event.Subscriber) { s.Feed = "Default" }},
		"no URL":                        {"/endpoint/url", endpoint("")},
		"user information":              {"/endpoint/url", endpoint("https://user:password@acme.example/")},
		"a user name":                   {"/endpoint/url", endpoint("https://user@acme.example/")},
		"empty user information":        {"/endpoint/url", endpoint("https://@acme.example/")},
		"a fragment":                    {"/endpoint/url", endpoint("https://acme.example/#top")},
		"an empty fragment":             {"/endpoint/url", endpoint("https://acme.example/#")},
		"ftp":                           {"/endpoint/url", endpoint("ftp://acme.example/")},
		"plain http":                    {"/endpoint/url", endpoint("http://acme.example/")},
		"a file":                        {"/endpoint/url", endpoint("file:///etc/passwd")},
		"no scheme":                     {"/endpoint/url", endpoint("acme.example/hook")},
		"no scheme but a host":          {"/endpoint/url", endpoint("//acme.example/hook")},
		"an opaque URL":                 {"/endpoint/url", endpoint("https:acme.example")},
		"no host":                       {"/endpoint/url", endpoint("https:///hook")},
		"a port without a host":         {"/endpoint/url", endpoint("https://:443/")},
		"port 0":                        {"/endpoint/url", endpoint("https://acme.example:0/")},
		"a port too high":               {"/endpoint/url", endpoint("https://acme.example:65536/")},
		"a word as port":                {"/endpoint/url", endpoint("https://acme.example:https/")},
		"a space in the host":           {"/endpoint/url", endpoint("https://acme example/")},
		"a control character":           {"/endpoint/url", endpoint("https://acme.example/\r\nHost: x")},
		"a URL of 8,001 characters":     {"/endpoint/url", endpoint("https://acme.example/" + strings.Repeat("a", 7980))},
		"a timeout under 1 s":           {"/endpoint/timeout", func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(999 * time.Millisecond) }},
		"a timeout over 60 s":           {"/endpoint/timeout", func(s *event.Subscriber) { s.Endpoint.Timeout = event.TimeoutMax + 1 }},
		"33 headers":                    {"/endpoint/headers", func(s *event.Subscriber) { s.Endpoint.Headers = headers(33) }},
		"33 headers, one of them kept":  {"/endpoint/headers", func(s *event.Subscriber) { s.Endpoint.Headers = headers(32); s.Endpoint.HeadersSet = []string{"X"} }},
		"header Host":                   {"/endpoint/headers/Host", header("Host", "other.example")},
		"header host in lower case":     {"/endpoint/headers/host", header("host", "other.example")},
		"header Content-Length":         {"/endpoint/headers/Content-Length", header("Content-Length", "0")},
		"header Transfer-Encoding":      {"/endpoint/headers/Transfer-Encoding", header("Transfer-Encoding", "chunked")},
		"header Connection":             {"/endpoint/headers/Connection", header("Connection", "close")},
		"header Idempotency-Key":        {"/endpoint/headers/Idempotency-Key", header("Idempotency-Key", "k")},
		"a header of ours":              {"/endpoint/headers/postroad-SEQUENCE", header("postroad-SEQUENCE", "1")},
		"a signature header":            {"/endpoint/headers/webhook-signature", header("webhook-signature", "v1,x")},
		"the credential as a header":    {"/endpoint/headers/Authorization", header("Authorization", "Bearer t")},
		"CR in a header":                {"/endpoint/headers/X-A", header("X-A", "a\rb")},
		"LF in a header":                {"/endpoint/headers/X-A", header("X-A", "a\nHost: x")},
		"NUL in a header":               {"/endpoint/headers/X-A", header("X-A", "a\x00")},
		"a header value of 4,097 bytes": {"/endpoint/headers/X-A", header("X-A", strings.Repeat("a", 4097))},
		"no header name":                {"/endpoint/headers/", header("", "a")},
		"a space in a header name":      {"/endpoint/headers/X A", header("X A", "a")},
		"LF in a header name":           {"/endpoint/headers/X\n", header("X\n", "a")},
		"a slash in a header name":      {"/endpoint/headers/X~1A~0", header("X/A~", "a")},
		"one header twice":              {"/endpoint/headers/x-a", func(s *event.Subscriber) { s.Endpoint.Headers = map[string]string{"X-A": "1", "x-a": "2"} }},
		"an unknown kind of auth":       {"/auth/type", func(s *event.Subscriber) { s.Auth.Type = "oauth2" }},
		"bearer without a token":        {"/auth/token", func(s *event.Subscriber) { s.Auth.Type = "bearer" }},
		"CR/LF in the token":            {"/auth/token", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "bearer", Token: "t\r\nX: y"} }},
		"CR/LF in an unused token":      {"/auth/token", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "none", Token: "t\r\nX: y"} }},
		"basic without a user":          {"/auth/username", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "basic", Password: "p"} }},
		"a colon in the user":           {"/auth/username", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "basic", Username: "a:b"} }},
		"LF in the password":            {"/auth/password", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "basic", Username: "u", Password: "\n"} }},
		"header auth without a name":    {"/auth/name", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "header", Value: "v"} }},
		"header auth as Host":           {"/auth/name", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "header", Name: "HOST", Value: "v"} }},
		"header auth without a value":   {"/auth/value", func(s *event.Subscriber) { s.Auth = event.Auth{Type: "header", Name: "X-Key"} }},
		"header auth named by a header": {"/auth/name", func(s *event.Subscriber) {
			s.Auth = event.Auth{Type: "header", Name: "X-Key", Value: "v"}
			s.Endpoint.Headers = map[string]string{"x-key": "w"}
		}},
		"an unknown signing scheme":    {"/signing/scheme", func(s *event.Subscriber) { s.Signing.Scheme = "v2" }},
		"a signing secret of 23 bytes": {"/signing/secret", func(s *event.Subscriber) { s.Signing.Secret = "whsec_" + strings.Repeat("AAAA", 7) + "AAA=" }},
		"a signing secret of 65 bytes": {"/signing/secret", func(s *event.Subscriber) { s.Signing.Secret = "whsec_" + strings.Repeat("AAAA", 21) + "AAA=" }},
		"a signing secret in hex":      {"/signing/secret", func(s *event.Subscriber) { s.Signing.Secret = "whsec_zz!" }},
		"a label of 256 characters":    {"/label", func(s *event.Subscriber) { s.Label = strings.Repeat("é", 256) }},
		"LF in the label":              {"/label", func(s *event.Subscriber) { s.Label = "a\nb" }},
		"another label header":         {"/labelHeader", func(s *event.Subscriber) { s.LabelHeader = "X-Label" }},
		"a format of later":            {"/format", func(s *event.Subscriber) { s.Format = "cloudevents" }},
		"batchSize 1,001":              {"/batchSize", func(s *event.Subscriber) { s.BatchSize = 1001 }},
		"batchSize -2":                 {"/batchSize", func(s *event.Subscriber) { s.BatchSize = -2 }},
		"batchBytes over 8 MiB":        {"/batchBytes", func(s *event.Subscriber) { s.BatchBytes = 8<<20 + 1 }},
		"65 lanes":                     {"/lanes", func(s *event.Subscriber) { s.Lanes = 65 }},
		"-2 lanes":                     {"/lanes", func(s *event.Subscriber) { s.Lanes = -2 }},
		"lanes x batchSize of 11,000":  {"/lanes", func(s *event.Subscriber) { s.Lanes, s.BatchSize = 11, 1000 }},
		"another compaction":           {"/compact", func(s *event.Subscriber) { s.Compact = "log" }},
		"a start below 0":              {"/start/sequence", func(s *event.Subscriber) { s.Start = event.Start{Where: "sequence", Sequence: -1} }},
		"an empty filter":              {"/filter/resourceNames", func(s *event.Subscriber) { s.Filter.ResourceNames = []string{} }},
		"101 names":                    {"/filter/eventTypes", func(s *event.Subscriber) { s.Filter.EventTypes = names(101) }},
		"an empty name":                {"/filter/eventTypes/1", func(s *event.Subscriber) { s.Filter.EventTypes = []string{"a", ""} }},
		"a star in front":              {"/filter/resourceNames/0", func(s *event.Subscriber) { s.Filter.ResourceNames = []string{"*a"} }},
		"two stars":                    {"/filter/resourceNames/0", func(s *event.Subscriber) { s.Filter.ResourceNames = []string{"a**"} }},
		"a name of 256 characters":     {"/filter/resourceNames/0", func(s *event.Subscriber) { s.Filter.ResourceNames = []string{strings.Repeat("a", 256)} }},
		"no step":                      {"/retry/schedule", func(s *event.Subscriber) { s.Retry.Schedule = []event.Duration{} }},
		"21 steps":                     {"/retry/schedule", func(s *event.Subscriber) { s.Retry.Schedule = steps(21, event.Day) }},
		"a step of 0":                  {"/retry/schedule/1", func(s *event.Subscriber) { s.Retry.Schedule = []event.Duration{event.Day, 0} }},
		"a step over 24 h":             {"/retry/schedule/0", func(s *event.Subscriber) { s.Retry.Schedule = []event.Duration{event.Day + 1} }},
		"giveUpAfter under 1 s":        {"/retry/giveUpAfter", func(s *event.Subscriber) { s.Retry.GiveUpAfter = 1 }},
		"an alert at 0 s":              {"/alert/lagSeconds", func(s *event.Subscriber) { s.Alert = &event.Alert{} }},
		"an alert after 30 d":          {"/alert/lagSeconds", func(s *event.Subscriber) { s.Alert = &event.Alert{LagSeconds: 30*86400 + 1} }},
		"an alert on _system":          {"/alert", func(s *event.Subscriber) { s.Feed, s.Alert = "_system", &event.Alert{LagSeconds: 1} }},
		"maxRetryAfter over 30 d":      {"/retry/maxRetryAfter", func(s *event.Subscriber) { s.Retry.MaxRetryAfter = 31 * event.Day }},
		"101 attempts":                 {"/retry/eventAttempts", func(s *event.Subscriber) { s.Retry.EventAttempts = 101 }},
		"a way out of later":           {"/onExhausted", func(s *event.Subscriber) { s.OnExhausted = "drop" }},
		"a long owner":                 {"/owner", func(s *event.Subscriber) { s.Owner = strings.Repeat("a", 256) }},
		"NUL in the description":       {"/description", func(s *event.Subscriber) { s.Description = "a\x00" }},
		"bad UTF-8 in the description": {"/description", func(s *event.Subscriber) { s.Description = "a\xff" }},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := valid()
			row.change(&s)
			errs := s.Validate(false)
			if len(errs) != 1 || errs[0].Pointer != row.pointer || errs[0].Detail == "" {
				t.Errorf("Validate says %q, want one error at %q", errs, row.pointer)
			}
		})
	}
}

// TestValidateNoSecrets: what was wrong with a secret is said without it.
func TestValidateNoSecrets(t *testing.T) {
	t.Parallel()
	const secret = "hunter2\n"
	s := valid()
	s.Auth = event.Auth{Type: event.AuthBasic, Token: secret, Username: "u", Password: secret, Value: secret}
	s.Signing.Secret = secret
	s.Endpoint.Headers = map[string]string{"X-Key": secret}
	s.Endpoint.URL = "https://hunter2@acme.example/"
	errs := s.Validate(false)
	if len(errs) != 6 || strings.Contains(errs.Error(), "hunter2") {
		t.Errorf("six errors without the secret wanted, got %v", errs)
	}
}

func TestValidateAllowHTTP(t *testing.T) {
	t.Parallel()
	s := valid()
	s.Endpoint.URL = "http://127.0.0.1:9000/"
	if errs := s.Validate(true); len(errs) > 0 {
		t.Errorf("http endpoint refused though allowed: %v", errs)
	}
	s.Endpoint.URL = "ftp://127.0.0.1/"
	if errs := s.Validate(true); len(errs) != 1 {
		t.Errorf("ftp endpoint: %v", errs)
	}
}

// TestValidateAll: everything wrong is said at once, in a fixed order.
func TestValidateAll(t *testing.T) {
	t.Parallel()
	s := event.Subscriber{Mode: event.ModePush, Endpoint: event.Endpoint{Headers: map[string]string{"Host": "", "Connection": "", "Te": "", "Expect": ""}}}
	want := []string{
		"/id", "/feed", "/endpoint/url", "/endpoint/timeout", "/endpoint/headers/Connection", "/endpoint/headers/Expect",
		"/endpoint/headers/Host", "/endpoint/headers/Te", "/auth/type", "/signing/scheme", "/labelHeader", "/format", "/batchSize",
		"/batchBytes", "/lanes", "/retry/schedule", "/retry/giveUpAfter", "/retry/maxRetryAfter", "/retry/eventAttempts", "/onExhausted",
	}
	var got []string
	for _, e := range s.Validate(false) {
		got = append(got, e.Pointer)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pointers (-want +got):\n%s", diff)
	}
}

func TestFieldErrors(t *testing.T) {
	t.Parallel()
	var errs event.FieldErrors
	if err := errs.Err(); err != nil {
		t.Errorf("nothing wrong, but Err is %v", err)
	}
	errs.Add("", "must be an object")
	errs.Addf("/list/%d", "must not be empty", 3)
	if got, want := fmt.Sprint(errs.Err()), "must be an object; /list/3 must not be empty"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

// TestStartJSON reads and writes each form, and nothing else.
func TestStartJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]event.Start{
		`"now"`:                            {Where: "now"},
		`"beginning"`:                      {Where: "beginning"},
		`{"sequence":0}`:                   {Where: "sequence"},
		`{"sequence":298}`:                 {Where: "sequence", Sequence: 298},
		`{"sequence":9223372036854775807}`: {Where: "sequence", Sequence: 1<<63 - 1},
	} {
		var got event.Start
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
		if back, err := json.Marshal(got); err != nil || string(back) != text {
			t.Errorf("%s is written as %s, %v", text, back, err)
		}
	}
	for _, text := range []string{
		`"end"`, `""`, `"NOW"`, `0`, `298`, `true`, `[]`, `{}`, `{"sequence":null}`, `{"sequence":"298"}`, `{"sequence":1.5}`,
		`{"sequence":9223372036854775808}`, `{"Sequence":1}`, `{"sequence":1,"epoch":2}`, `{"time":"2026-01-01T00:00:00Z"}`,
	} {
		start := event.Start{Where: "beginning"}
		if err := json.Unmarshal([]byte(text), &start); err == nil || start.Where != "beginning" {
			t.Errorf("%s is read as %+v, %v", text, start, err)
		}
	}
}

// TestCountJSON reads and writes numbers and "auto", and nothing else.
func TestCountJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]event.Count{`0`: 0, `1`: 1, `64`: 64, `1000`: 1000, `"auto"`: event.Auto} {
		var got event.Count
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %d, %v", text, got, err)
		}
		if back, err := json.Marshal(got); err != nil || string(back) != text {
			t.Errorf("%s is written as %s, %v", text, back, err)
		}
	}
	for _, text := range []string{`-1`, `-2`, `1.5`, `1e3`, `"3"`, `"Auto"`, `""`, `true`, `[]`, `{}`, `99999999999`} {
		got := event.Count(7)
		if err := json.Unmarshal([]byte(text), &got); err == nil || got != 7 {
			t.Errorf("%s is read as %d, %v", text, got, err)
		}
	}
	if a, b := event.Auto.Or(1000), event.Count(3).Or(1000); a != 1000 || b != 3 {
		t.Errorf("Or gives %d and %d, want 1000 and 3", a, b)
	}
}

// TestDefaulted: an absent member gets its default, a given one stays.
func TestDefaulted(t *testing.T) {
	t.Parallel()
	got := event.Subscriber{}.Defaulted()
	want := event.Subscriber{
		Feed: "default", Mode: "push", Endpoint: event.Endpoint{Timeout: event.Duration(15 * time.Second)}, Auth: event.Auth{Type: "none"},
		Signing: event.Signing{Scheme: "standard"}, LabelHeader: "EntityEventSource", Format: "reso", BatchSize: 1, BatchBytes: 1 << 20,
		Lanes: 1, Start: event.Start{Where: "now"}, OnExhausted: "halt",
		Retry: event.Retry{GiveUpAfter: 7 * event.Day, EventAttempts: 5, MaxRetryAfter: event.Day},
	}
	for _, step := range []string{"5s", "30s", "2m", "10m", "30m", "1h", "2h", "4h"} {
		d, err := event.ParseDuration(step)
		if err != nil {
			t.Fatal(err)
		}
		want.Retry.Schedule = append(want.Retry.Schedule, d)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	given := got
	given.Feed, given.BatchSize, given.Format, given.Start = "other", 100, "raw", event.Start{Where: "beginning"}
	given.Retry = event.Retry{Schedule: []event.Duration{}, GiveUpAfter: event.Day, EventAttempts: 1, MaxRetryAfter: event.Day}
	if diff := cmp.Diff(given, given.Defaulted()); diff != "" {
		t.Errorf("what was given (-want +got):\n%s", diff)
	}
}
