package event_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postroad/event"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond,
		"0s":    0,
		"15s":   15 * time.Second,
		"10m":   10 * time.Minute,
		"4h":    4 * time.Hour,
		"7d":    7 * 24 * time.Hour,
		"090s":  90 * time.Second,
		// The longest in days that fits: 2^63 ns are 106,751.99 days.
		"106751d": 106751 * 24 * time.Hour,
	} {
		if got, err := event.ParseDuration(text); err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got.Std(), err, want)
		}
	}
}

func TestParseDurationRefuses(t *testing.T) {
	t.Parallel()
	for reason, text := range map[string]string{
		"nothing":            "",
		"a word":             "soon",
		"no unit":            "15",
		"no number":          "s",
		"two units":          "1h30m",
		"a fraction":         "1.5s",
		"a sign":             "-1s",
		"a plus":             "+1s",
		"a space":            "1 s",
		"space around":       " 1s",
		"a line break":       "1s\n",
		"upper case":         "1S",
		"microseconds":       "1us",
		"other digits":       "١s",
		"more than 292 y":    "106752d",
		"far more":           "999999999999d",
		"thirteen digits":    "1000000000000ms",
		"ISO 8601":           "PT15S",
		"exponent":           "1e3s",
		"hexadecimal":        "0x1s",
		"underscore":         "1_000s",
		"weeks":              "1w",
		"the Go zero":        "0",
		"a NUL after the 1s": "1s\x00",
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			got, err := event.ParseDuration(text)
			if err == nil {
				t.Fatalf("ParseDuration(%q) = %s, want an error", text, got)
			}
			if got != 0 {
				t.Errorf("ParseDuration(%q) = %s beside its error", text, got)
			}
		})
	}
}

// TestDurationRoundTrip: what String writes, ParseDuration reads.
func TestDurationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "unit")
		n := rapid.Int64Range(0, 100_000).Draw(t, "n")
		want := event.Duration(n * int64(unit))
		got, err := event.ParseDuration(want.String())
		if err != nil || got != want {
			t.Fatalf("ParseDuration(%q) = %v, %v, want %v", want.String(), got.Std(), err, want.Std())
		}
	})
}

func TestDurationString(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"0ms": 0, "1ms": time.Millisecond, "1500ms": 1500 * time.Millisecond, "90s": 90 * time.Second,
		"1m": 60 * time.Second, "36h": 36 * time.Hour, "7d": 7 * 24 * time.Hour,
	} {
		if got := event.Duration(d).String(); got != want {
			t.Errorf("Duration(%v) is written %q, want %q", d, got, want)
		}
	}
}

func TestDurationJSON(t *testing.T) {
	t.Parallel()
	var schedule []event.Duration
	if err := json.Unmarshal([]byte(`["1ms","7d"]`), &schedule); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(schedule)
	if err != nil || string(text) != `["1ms","7d"]` {
		t.Errorf("schedule came back as %s, %v", text, err)
	}
	for _, bad := range []string{`["soon"]`, `[15]`, `[" 15s"]`, `[true]`, `[{}]`} {
		if err := json.Unmarshal([]byte(bad), &schedule); err == nil {
			t.Errorf("%s was accepted as a schedule", bad)
		}
	}
}

// FuzzParseDuration compares with the standard library, which knows the same
// notation for all units but the day, and more besides.
func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"500ms", "15s", "10m", "4h", "7d", "", "soon", "-1s", "1h30m", "106752d", "9223372036s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := event.ParseDuration(text)
		if err != nil {
			return
		}
		inHours, days := strings.CutSuffix(text, "d")
		if days {
			inHours += "h"
		} else {
			inHours = text
		}
		want, err := time.ParseDuration(inHours)
		if err != nil {
			t.Fatalf("ParseDuration(%q) = %v, the standard library refuses it: %v", text, got.Std(), err)
		}
		if days {
			want *= 24
		}
		if got.Std() != want || got < 0 {
			t.Fatalf("ParseDuration(%q) = %v, want %v", text, got.Std(), want)
		}
	})
}
