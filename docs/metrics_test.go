package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	metricRow    = regexp.MustCompile("(?m)^\\| `(postroad_[a-z_]+)` \\| (counter|gauge|histogram) \\|")
	metricName   = regexp.MustCompile(`\b(?:postroad|go|process)_[a-z_]+\b`)
	foreignNames = regexp.MustCompile("`((?:go|process)_[a-z_]+)`")
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWatchedMetricsExist: dashboard and alerts ask for nothing that is not in
// the list of metrics, which a test of cmd/postroad holds to what is served; and
// there is no metric that nobody looks at.
func TestWatchedMetricsExist(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/METRICS.md")
	listed, series := map[string]bool{}, map[string]string{} // false: not looked at so far
	for _, row := range metricRow.FindAllStringSubmatch(page, -1) {
		listed[row[1]], series[row[1]] = false, row[1]
		if row[2] == "histogram" {
			delete(series, row[1])
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				series[row[1]+suffix] = row[1]
			}
		}
	}
	for _, name := range foreignNames.FindAllStringSubmatch(page, -1) {
		listed[name[1]], series[name[1]] = false, name[1]
	}
	for _, file := range []string{"deploy/grafana/dashboards/postroad.json", "deploy/prometheus/rules.yml"} {
		names := metricName.FindAllString(read(t, file), -1)
		for _, name := range names {
			if metric, ok := series[name]; ok {
				listed[metric] = true
			} else {
				t.Errorf("%s asks for %s, which docs/METRICS.md does not have", file, name)
			}
		}
		if len(names) < 10 {
			t.Errorf("%s: found %d names, so this test does not read it", file, len(names))
		}
	}
	for _, metric := range slices.Sorted(maps.Keys(listed)) {
		if !listed[metric] {
			t.Errorf("neither dashboard nor alerts look at %s", metric)
		}
	}
}

// TestAlertsHaveRunbooks: each alert says where to read on, and there is
// something to read.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	rules, page := read(t, "deploy/prometheus/rules.yml"), read(t, "docs/OPERATIONS.md")
	alerts := strings.Split(rules, "- alert: ")[1:]
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		for _, part := range []string{"\n          summary: ", "\n          runbook: docs/OPERATIONS.md#" + strings.ToLower(name) + "\n", "severity: "} {
			if !strings.Contains(alert, part) {
				t.Errorf("%s has no %q", name, strings.TrimSpace(part))
			}
		}
		if !strings.Contains(page, "\n### "+name+"\n") {
			t.Errorf("docs/OPERATIONS.md does not say what to do about %s", name)
		}
		if !strings.Contains(read(t, "deploy/prometheus/rules_test.yml"), "alertname: "+name+"\n") {
			t.Errorf("deploy/prometheus/rules_test.yml does not raise %s", name)
		}
	}
	if got := strings.Count(page, "\n### Postroad"); got != len(alerts) || got < 10 {
		t.Errorf("%d sections about %d alerts", got, len(alerts))
	}
}
