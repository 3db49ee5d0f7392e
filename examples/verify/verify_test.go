package verify_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/examples/verify"
	"postroad/internal/testkit"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// request is one request to verify; its members are what the drivers read.
type request struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"` // by lower-case name
	Body    []byte            `json:"body"`    // base64
	Now     int64             `json:"now"`
}

// with returns a copy with a header changed, or without it for "".
func (r request) with(name, value string) request {
	r.Headers = maps.Clone(r.Headers)
	if r.Headers[name] = value; value == "" {
		delete(r.Headers, name)
	}
	return r
}

func (r request) after(seconds int64) request {
	r.Now += seconds
	return r
}

// vector is the one that Standard Webhooks publishes.
func vector() request {
	return request{
		Secret: secret, Body: []byte(`{"test": 2432232314}`), Now: 1614265330,
		Headers: map[string]string{
			"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
			"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		},
	}
}

// delivered is a request as Postroad makes it, in the midst of a rotation of
// the secret.
func delivered(t *testing.T) request {
	t.Helper()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	client := delivery.NewClient(delivery.Config{Guard: delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}})
	t.Cleanup(client.Close)
	now := time.Now()
	target, err := client.NewTarget(delivery.TargetConfig{
		Subscriber: event.Subscriber{ID: "acme", Feed: "default", Endpoint: event.Endpoint{URL: receiver.URL()}},
		Secrets: event.Secrets{Signing: []event.SigningSecret{
			{Secret: delivery.NewSigningSecret()}, {Secret: secret, ExpiresAt: now.Add(time.Hour)},
		}},
		FeedEpoch: 1, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Sequence: 1101, ResourceName: "Showing", ResourceRecordKey: "2350-Ü-21"}
	if a := client.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1}); a.Class != delivery.ClassSuccess {
		t.Fatalf("answer %+v", a)
	}
	got := receiver.Requests()[0]
	r := request{Secret: secret, Headers: map[string]string{}, Body: got.Body, Now: now.Unix()}
	for name := range got.Header {
		r.Headers[strings.ToLower(name)] = got.Header.Get(name)
	}
	return r
}

// verifier verifies requests and says of each what was wrong, "" for nothing.
type verifier func(t *testing.T, requests []request) []string

func inGo(_ *testing.T, requests []request) []string {
	verdicts := make([]string, len(requests))
	for i, r := range requests {
		header := http.Header{}
		for name, value := range r.Headers {
			header.Set(name, value)
		}
		if err := verify.Verify(r.Secret, header, r.Body, time.Unix(r.Now, 0)); err != nil {
			verdicts[i] = err.Error()
		}
	}
	return verdicts
}

const nodeDriver = `
import { readFileSync } from "node:fs";
import { verify } from "./verify.mjs";
const verdicts = JSON.parse(readFileSync(0, "utf8")).map((r) => {
  try { verify(r.secret, r.headers, Buffer.from(r.body, "base64"), r.now); return ""; } catch (e) { return e.message; }
});
console.log(JSON.stringify(verdicts));`

const pythonDriver = `
import base64, json, sys
sys.dont_write_bytecode = True
from verify import verify
verdicts = []
for r in json.load(sys.stdin):
    try:
        verify(r["secret"], r["headers"], base64.b64decode(r["body"]), r["now"])
        verdicts.append("")
    except ValueError as e:
        verdicts.append(str(e))
print(json.dumps(verdicts))`

// run gives a program a document and reads the one it answers with.
func run(t *testing.T, in, out any, program string, args ...string) {
	t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if err := json.Unmarshal(output, out); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

func inProgram(program string, args ...string) verifier {
	return func(t *testing.T, requests []request) []string {
		t.Helper()
		var verdicts []string
		run(t, requests, &verdicts, program, args...)
		return verdicts
	}
}

// verifiers are those that can be run here: Go always, the others where their
// interpreter is.
func verifiers(t *testing.T) map[string]verifier {
	t.Helper()
	all := map[string]verifier{"Go": inGo}
	for program, args := range map[string][]string{
		"node":    {"--input-type=module", "--eval", nodeDriver},
		"python3": {"-c", pythonDriver},
	} {
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("NOT RUN: the verifier for %s, which is not installed here", program)
			continue
		}
		all[program] = inProgram(program, args...)
	}
	return all
}

func TestVerify(t *testing.T) {
	t.Parallel()
	real, known := delivered(t), vector()
	other := real
	other.Secret = delivery.NewSigningSecret()
	changed := real
	changed.Body = append(bytes.Clone(real.Body), ' ')
	bare := known
	bare.Secret = strings.TrimPrefix(secret, "whsec_")
	noSecret := known
	noSecret.Secret = "whsec_"
	signature := known.Headers["webhook-signature"]
	tests := []struct {
		name string
		request
		want bool
	}{
		{"the standard's vector", known, true},
		{"a delivery, signed with two secrets", real, true},
		{"the secret without its prefix", bare, true},
		{"299 s old", known.after(299), true},
		{"299 s ahead", known.after(-299), true},
		{"another version's signature first", known.with("webhook-signature", "v1a,AAAA "+signature), true},
		{"a wrong one first", known.with("webhook-signature", "v2,x v1,AAAA "+signature), true},
		{"301 s old", known.after(301), false},
		{"301 s ahead", known.after(-301), false},
		{"another secret", other, false},
		{"another body", changed, false},
		{"another id", real.with("webhook-id", "acme_1102"), false},
		{"another time", real.with("webhook-timestamp", known.Headers["webhook-timestamp"]), false},
		{"no id", known.with("webhook-id", ""), false},
		{"no time", known.with("webhook-timestamp", ""), false},
		{"a word for a time", known.with("webhook-timestamp", "hello"), false},
		{"no signature", known.with("webhook-signature", ""), false},
		{"half a signature", known.with("webhook-signature", signature[:20]), false},
		{"an empty signature", known.with("webhook-signature", "v1,"), false},
		{"the signature of another version", known.with("webhook-signature", "v1a"+signature[2:]), false},
		{"no secret", noSecret, false},
	}
	requests := make([]request, len(tests))
	for i, test := range tests {
		requests[i] = test.request
	}
	for name, verifies := range verifiers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verdicts := verifies(t, requests)
			for i, test := range tests {
				if got := verdicts[i] == ""; got != test.want {
					t.Errorf("%s: %q", test.name, verdicts[i])
				}
			}
		})
	}
}

const sequencesDriver = `
import { readFileSync } from "node:fs";
import { readEvents } from "./sequences.mjs";
const bodies = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(bodies.map((b) => readEvents(Buffer.from(b, "base64").toString()).map((e) => String(e.EntityEventSequence) + " " + e.ResourceRecordKey))));`

func TestSequencesInJavaScript(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Log("NOT RUN: node is not installed here")
		return
	}
	tricky := `a "EntityEventSequence":12 \`
	events := []*event.Event{
		{Sequence: 9007199254740993, ResourceName: "Property", ResourceRecordKey: tricky},
		{Sequence: 9223372036854775807, ResourceName: "Property", ResourceRecordKey: "2"},
	}
	bodies := []string{
		base64.StdEncoding.EncodeToString(delivery.AppendBody(nil, event.FormatRESO, true, events)),
		base64.StdEncoding.EncodeToString(delivery.AppendBody(nil, event.FormatRESO, false, events[:1])),
	}
	var got [][]string
	run(t, bodies, &got, "node", "--input-type=module", "--eval", sequencesDriver)
	first, second := "9007199254740993 "+tricky, "9223372036854775807 2"
	if len(got) != 2 || strings.Join(got[0], "|") != first+"|"+second || strings.Join(got[1], "|") != first {
		t.Errorf("read %q", got)
	}
}

// TestDocs holds docs/CONSUMERS.md to the code that was run here.
func TestDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/CONSUMERS.md")
	if err != nil {
		t.Fatal(err)
	}
	for file, part := range map[string][2]string{ // from where to where
		"verify.go": {"// Verify returns"}, "verify.mjs": {"import"}, "verify.py": {"import"}, "sequences.mjs": {"// Reads"},
		"../ledger/ledger.go": {"// handle applies", "\n// lock"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = text[bytes.Index(text, []byte(part[0])):]
		if part[1] != "" {
			text = text[:bytes.Index(text, []byte(part[1]))]
		}
		if !bytes.Contains(page, text) {
			t.Errorf("docs/CONSUMERS.md does not show %s as it is, from %q on", file, part[0])
		}
	}
}
