package main_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	main "postroad/cmd/postroad"
)

func TestFeedRetentionFlags(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "kept-a", "--retention-age", "30d", "--retention-hard-age", "90d").want(t, ok)
	shows := func(wanted, unwanted []string) {
		t.Helper()
		shown := on(t, "feed", "get", "kept-a").want(t, ok).contains(t, wanted...).stdout
		for _, text := range unwanted {
			if strings.Contains(shown, text) {
				t.Errorf("it shows %q:\n%s", text, shown)
			}
		}
	}
	shows([]string{"30d", "hard retention", "90d"}, nil)
	on(t, "feed", "update", "kept-a", "--retention-age", "7d").want(t, ok)
	shows([]string{"7d", "90d"}, []string{"30d"})
	on(t, "feed", "update", "kept-a", "--retention-hard-age", "never").want(t, ok)
	shows([]string{"7d"}, []string{"hard"})
	on(t, "feed", "update", "kept-a", "--retention-age", "1s").want(t, failed).contains(t, "/retention/age")
	on(t, "feed", "update", "kept-a", "--compact-after", "1h").want(t, ok)
	shows([]string{"compacted after", "1h", "7d"}, []string{"compacted through"})
	on(t, "feed", "update", "kept-a", "--compact-after", "never").want(t, ok)
	shows(nil, []string{"compacted"})
	on(t, "feed", "create", "kept-b", "--retention-age", "never").want(t, ok)
	on(t, "feed", "get", "kept-a", "--json").want(t, ok).contains(t, "\"retention\": {\n    \"age\": \"7d\"\n  }")
}

func TestFeedEraseCommand(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "erase-a").want(t, ok)
	for _, key := range []string{"1/2 +%", "other"} {
		event := `{"resourceName":"A b","resourceRecordKey":"` + key + `","data":{"name":"of ` + key + `"}}`
		invoke(t, main.Invocation{
			Args: []string{"publish", "-", "--feed", "erase-a", "--data-dir", stack(t)}, Stdin: strings.NewReader(event), WorkDir: t.TempDir(),
		}).want(t, ok)
	}
	on(t, "feed", "erase", "erase-a", "A b", "1/2 +%").want(t, ok).contains(t, "erased the data of 1 event and 0 answers to them")
	on(t, "feed", "erase", "erase-a", "A b", "1/2 +%", "--json").want(t, ok).contains(t, `"events": 0`)
	on(t, "feed", "erase", "erase-none", "A", "1").want(t, notFound)
	on(t, "feed", "erase", "erase-a", "A").want(t, usage)
}

// TestStatusOfRetention: who reads a status in the terminal sees what the feed's
// hard age takes from the subscriber.
func TestStatusOfRetention(t *testing.T) {
	t.Parallel()
	answer := `{"state":"halted","cursor":5,"head":9,"lagEvents":4`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		text := answer + `}`
		if strings.Contains(r.URL.Path, "/threatened/") {
			text = answer + `,"retention":{"removedFrom":"2026-03-01T09:30:00Z","lostEvents":3,"lostThrough":1234}}`
		}
		_, _ = w.Write([]byte(text))
	}))
	defer server.Close()
	cli(t, "status", "threatened", "--server", server.URL).want(t, ok).
		contains(t, "removes what it is owed from 2026-03-01T09:30:00Z on", "3 events up to 1234, removed before delivery")
	if shown := cli(t, "status", "safe", "--server", server.URL).want(t, ok).stdout; strings.Contains(shown, "retention") || strings.Contains(shown, "lost") {
		t.Errorf("a status without retention reads\n%s", shown)
	}
}
