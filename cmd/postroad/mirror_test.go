package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	main "postroad/cmd/postroad"
	"postroad/internal/apiclient"
	"postroad/internal/config"
	"postroad/internal/streams"
	"postroad/internal/testkit"
)

// resoSource is a RESO server whose sequences are n*3, for the n-th of a real
// stream of changes. It gives 250 events at once and wants a bearer token.
type resoSource struct {
	*httptest.Server
	mu      sync.Mutex
	records []resoRecord
	pause   time.Duration // before each answer
}

type resoRecord struct {
	EntityEventSequence             int64
	ResourceName, ResourceRecordKey string
}

func newRESOSource(t *testing.T) *resoSource {
	t.Helper()
	lines, err := streams.Lines("sdk-go")
	if err != nil {
		t.Fatal(err)
	}
	s := &resoSource{}
	for i, line := range lines {
		var r struct{ ResourceName, ResourceRecordKey string }
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		s.records = append(s.records, resoRecord{int64(i+1) * 3, r.ResourceName, r.ResourceRecordKey})
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

var sequenceAbove = regexp.MustCompile(`^EntityEventSequence gt (\d+)$`)

func (s *resoSource) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer of-the-source" {
		http.Error(w, `{"error":{"code":"401","message":"who are you?"}}`, http.StatusUnauthorized)
		return
	}
	const pageMax = 250
	answer := map[string]any{"value": s.records[len(s.records)-1:]}
	if match := sequenceAbove.FindStringSubmatch(r.URL.Query().Get("$filter")); match != nil {
		<-time.After(s.pause)
		after, _ := strconv.ParseInt(match[1], 10, 64)
		at := 0
		for at < len(s.records) && s.records[at].EntityEventSequence <= after {
			at++
		}
		end := min(at+pageMax, len(s.records))
		answer["value"] = s.records[at:end]
		if end < len(s.records) {
			answer["@odata.nextLink"] = fmt.Sprintf("%s/odata/EntityEvent?$filter=EntityEventSequence%%20gt%%20%d", s.URL, s.records[end-1].EntityEventSequence)
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// mirrored reads a feed.
func mirrored(t *testing.T, api *apiclient.Client, feed string) (records []resoRecord) {
	t.Helper()
	for after := int64(0); ; {
		var page struct {
			Events []struct {
				Sequence                        int64
				ResourceName, ResourceRecordKey string
			}
		}
		path := fmt.Sprintf("/v1/feeds/%s/events?limit=1000&after=%d", feed, after)
		if _, err := api.Do(t.Context(), apiclient.Request{Method: http.MethodGet, Path: path}, &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Events) == 0 {
			return records
		}
		for _, e := range page.Events {
			records, after = append(records, resoRecord{e.Sequence, e.ResourceName, e.ResourceRecordKey}), e.Sequence
		}
	}
}

// TestMirrorCommand: a mirror that is killed in the middle goes on where the feed
// is, and ends with exactly the source's tuples; what came late is told.
func TestMirrorCommand(t *testing.T) {
	t.Parallel()
	s, dir := newRESOSource(t), stack(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("of-the-source\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := config.Search{DataDir: dir}.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := &apiclient.Client{URL: target.URL, Token: target.Token}
	head := func() (head int64) {
		var feed struct{ Head int64 }
		if _, err := api.Do(t.Context(), apiclient.Request{Method: http.MethodGet, Path: "/v1/feeds/mirrored"}, &feed); err != nil {
			return 0
		}
		return feed.Head
	}
	args := []string{"mirror", "--from", s.URL + "/odata/", "--feed", "mirrored", "--source-token-file", token, "--data-dir", dir, "--horizon", "100ms", "--poll", "20ms"}

	s.pause = 10 * time.Millisecond
	child := startChild(t, t.TempDir(), args...)
	last := s.records[len(s.records)-1].EntityEventSequence
	testkit.Eventually(t, startMax, func() bool { return head() > last/4 }, "a quarter is mirrored")
	child.kill()
	killedAt := head()
	if killedAt >= last {
		t.Fatal("it was through before it was killed")
	}
	on(t, append(args, "--once")...).want(t, ok).contains(t, fmt.Sprintf("above sequence %d", killedAt), fmt.Sprintf("feed mirrored is at sequence %d", last))
	want := s.records
	if got := mirrored(t, api, "mirrored"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the feed has %d records, the source %d, or they differ", len(got), len(want))
	}

	s.mu.Lock()
	s.records = append(append([]resoRecord(nil), want[:12_000]...), append([]resoRecord{{want[11_999].EntityEventSequence + 1, "Property", "late"}}, want[12_000:]...)...)
	s.mu.Unlock()
	on(t, append(args, "--once")...).want(t, ok).contains(t, "LATE: sequence 36001 (Property late) came late", "0 events taken", "1 event came late")
	on(t, append(args, "--once", "--json")...).want(t, ok).contains(t, `{"late":{"detail":"sequence 36001`, `"ended":true`, `"late":1`)
	on(t, append(args, "--once", "--recheck-sequences", "100")...).want(t, ok)
}

func TestMirrorCommandRefused(t *testing.T) {
	t.Parallel()
	s := newRESOSource(t)
	on(t, "feed", "create", "mirror-no").want(t, ok)
	on(t, "mirror", "--from", s.URL+"/odata", "--feed", "mirror-no").want(t, failed).contains(t, "numbers its events itself")
	on(t, "mirror", "--from", s.URL+"/odata", "--feed", "mirror-none", "--once").want(t, failed).
		contains(t, "HTTP 401", "who are you?", s.URL+"/odata/EntityEvent?$filter=EntityEventSequence%20gt%200")
	for name, more := range map[string][]string{
		"no source":         {"--feed", "a"},
		"no feed":           {"--from", s.URL},
		"a file":            {"--feed", "a", "--from", "file:///etc/passwd"},
		"a query":           {"--feed", "a", "--from", s.URL + "?x=1"},
		"a password":        {"--feed", "a", "--from", "https://me:secret@example.org/"},
		"an id alone":       {"--feed", "a", "--from", s.URL, "--client-id", "me"},
		"two ways in":       {"--feed", "a", "--from", s.URL, "--source-token-file", "x", "--token-url", s.URL, "--client-id", "me", "--client-secret-file", "x"},
		"a horizon below 0": {"--feed", "a", "--from", s.URL, "--horizon", "-1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := cli(t, append([]string{"mirror"}, more...)...).want(t, usage); strings.Contains(r.stderr, "secret@") {
				t.Errorf("the password is shown: %s", r.stderr)
			}
		})
	}
}

// TestMirrorOfPostroad: a feed that Postroad itself serves as EntityEvent is
// mirrored with exactly its tuples, by the command and as a feed's source.
func TestMirrorOfPostroad(t *testing.T) {
	t.Parallel()
	dir := stack(t)
	target, err := config.Search{DataDir: dir}.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := &apiclient.Client{URL: target.URL, Token: target.Token}
	lines, err := streams.Lines("sdk-go")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	on(t, "feed", "create", "original").want(t, ok)
	on(t, "publish", file, "--feed", "original").want(t, ok)
	want := mirrored(t, api, "original")
	if len(want) != len(lines) {
		t.Fatalf("the original has %d events, want %d", len(want), len(lines))
	}

	root := target.URL + "/odata/original/"
	on(t, "mirror", "--from", root, "--feed", "copied", "--source-token-file", config.TokenFile(dir), "--once", "--horizon", "1s").
		want(t, ok).contains(t, "12,525 events taken, feed copied is at sequence 12525")
	source := map[string]any{"url": root, "horizon": "1s", "poll": "100ms", "auth": map[string]string{"type": "bearer", "token": target.Token}}
	made := map[string]any{"name": "followed", "source": source}
	if _, err := api.Do(t.Context(), apiclient.Request{Method: http.MethodPost, Path: "/v1/feeds", In: made}, nil); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, startMax, func() bool { return len(want) == len(mirrored(t, api, "followed")) }, "the source is followed to its end")
	for _, feed := range []string{"copied", "followed"} {
		if got := mirrored(t, api, feed); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("feed %s has %d events, the original %d, or they differ", feed, len(got), len(want))
		}
	}
	on(t, "feed", "get", "followed").want(t, ok).contains(t, root, "following: All that the source showed is in the feed.")
	r := invoke(t, main.Invocation{
		Args: []string{"publish", "-", "--feed", "followed", "--data-dir", dir}, WorkDir: t.TempDir(),
		Stdin: strings.NewReader(`{"sequence":99999,"resourceName":"A","resourceRecordKey":"1"}`),
	})
	r.want(t, conflict).contains(t, "has-source")
}
