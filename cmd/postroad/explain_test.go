package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	main "postroad/cmd/postroad"
	"postroad/internal/testkit"
)

// TestExplain asks about events of two subscribers: one gets them, the other
// takes none of them.
func TestExplain(t *testing.T) {
	t.Parallel()
	consumer := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	on(t, "feed", "create", "explained").want(t, ok)
	on(t, "subscriber", "create", "explained-acme", "--feed", "explained", "--endpoint", consumer.URL(), "--start", "beginning").want(t, ok)
	on(t, "subscriber", "create", "explained-media", "--feed", "explained", "--endpoint", consumer.URL(), "--start", "beginning", "--resource", "Media").want(t, ok)
	const property = `{"resourceName":"Property","resourceRecordKey":"235021"}` + "\n"
	invoke(t, main.Invocation{
		Args:  []string{"publish", "-", "--feed", "explained", "--data-dir", stack(t)},
		Stdin: strings.NewReader(property + `{"resourceName":"Property","resourceRecordKey":"a/b"}` + "\n" + property), WorkDir: t.TempDir(),
	}).want(t, ok)

	var r result
	explain := func(args ...string) result { return on(t, append([]string{"explain"}, args...)...) }
	testkit.Eventually(t, waitMax, func() bool {
		r = explain("Property/235021", "--feed", "explained").want(t, ok)
		return strings.Count(r.stdout, "HTTP 200") == 2
	}, "both events are delivered")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) != 5 {
		t.Fatalf("got\n%s", r.stdout)
	}
	for i, want := range []string{"explained-acme 3 delivered", "explained-media 3 filtered", "explained-acme 1 delivered", "explained-media 1 filtered"} {
		if got := strings.Join(strings.Fields(lines[i+1]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d is %q", i+1, got)
		}
	}
	r.contains(t, "HTTP 200, attempt 1", "resourceNames")
	if r := explain("Property/235021", "--feed", "explained", "--limit", "1").want(t, ok).contains(t, "--limit"); strings.Count(r.stdout, "explained-acme") != 1 {
		t.Errorf("more than one event:\n%s", r.stdout)
	}
	if r := explain("Property/235021", "--subscriber", "explained-acme", "--limit", "1").want(t, ok).contains(t, "--limit"); strings.Contains(r.stdout, "media") {
		t.Errorf("of another subscriber:\n%s", r.stdout)
	}
	explain("Property/a/b", "--subscriber", "explained-acme").want(t, ok).contains(t, "2", "delivered")
	explain("2", "--feed", "explained").want(t, ok).contains(t, "explained-acme", "delivered", "explained-media", "filtered")

	var document struct {
		Deliveries []struct{ Subscriber, State string }
		MoreEvents bool
	}
	if err := json.Unmarshal([]byte(explain("2", "--subscriber", "explained-acme", "--json").want(t, ok).stdout), &document); err != nil {
		t.Fatal(err)
	}
	if d := document.Deliveries; len(d) != 1 || d[0].Subscriber != "explained-acme" || d[0].State != "delivered" || document.MoreEvents {
		t.Errorf("got %+v", document)
	}
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(on(t, "token", "create", "--role", "subscriber", "--subscriber", "explained-media", "--json").want(t, ok).stdout), &made); err != nil {
		t.Fatal(err)
	}
	own := main.Invocation{
		Args: []string{"explain", "Property/235021", "--subscriber", "explained-media", "--data-dir", stack(t)}, WorkDir: t.TempDir(),
		Environ: []string{"POSTROAD_TOKEN=" + made.Token},
	}
	invoke(t, own).want(t, ok).contains(t, "its filter lets no event of Property pass")

	explain("Property/none", "--feed", "explained").want(t, notFound).contains(t, "the feed has no event of Property/none")
	explain("Property/none", "--subscriber", "explained-acme").want(t, notFound)
	explain("99", "--feed", "explained").want(t, notFound).contains(t, "99")
	explain("1", "--feed", "nowhere").want(t, notFound)
	explain("1", "--subscriber", "nobody").want(t, notFound)
	explain("1", "--subscriber", "explained-acme", "--feed", "explained").want(t, usage)
	explain("235021x").want(t, usage).contains(t, "Property/235021")
	explain("0").want(t, usage)
	explain("1", "--limit", "0").want(t, usage)
}
