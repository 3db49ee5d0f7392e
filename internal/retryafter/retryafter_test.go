package retryafter

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

var rfcNow = time.Date(1994, 11, 6, 8, 49, 7, 0, time.UTC)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now2026 := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		now   time.Time // zero: rfcNow
		want  time.Duration
		ok    bool
	}{
		{value: "120", want: 120 * time.Second, ok: true},
		{value: "0", want: 0, ok: true},
		{value: "00120", want: 120 * time.Second, ok: true},
		{value: "86400", want: 24 * time.Hour, ok: true},
		{value: "86401", want: 24 * time.Hour, ok: true},
		{value: "99999999999999999999", want: 24 * time.Hour, ok: true},
		{value: strings.Repeat("9", 4000), want: 24 * time.Hour, ok: true},
		{value: " 120 ", want: 120 * time.Second, ok: true},
		{value: "\t120", want: 120 * time.Second, ok: true},
		{value: "-1"},
		{value: "+5"},
		{value: "1.5"},
		{value: "1e3"},
		{value: "0x10"},
		{value: ""},
		{value: " "},
		{value: "soon"},
		{value: "120, 60"},
		{value: "120;q=1"},
		{value: "１２０"},

		{value: "Sun, 06 Nov 1994 08:49:37 GMT", want: 30 * time.Second, ok: true},
		{value: "Sunday, 06-Nov-94 08:49:37 GMT", want: 30 * time.Second, ok: true},
		{value: "Sun Nov  6 08:49:37 1994", want: 30 * time.Second, ok: true},
		{value: "Sun Nov 6 08:49:37 1994", want: 30 * time.Second, ok: true},
		{value: "Sun Nov 16 08:49:07 1994", want: 24 * time.Hour, ok: true},
		{value: " Sun, 06 Nov 1994 08:49:37 GMT ", want: 30 * time.Second, ok: true},
		{value: "Sun, 06 Nov 1994 08:49:07 GMT", want: 0, ok: true},
		{value: "Sun, 06 Nov 1994 08:49:06 GMT", want: 0, ok: true},
		{value: "Sat, 05 Nov 1994 08:49:37 GMT", want: 0, ok: true},
		{value: "Mon, 06 Nov 1994 08:49:37 GMT", want: 30 * time.Second, ok: true},
		{value: "sun, 06 nov 1994 08:49:37 GMT", want: 30 * time.Second, ok: true},
		{value: "Sun, 06 Nov 1994 08:49:60 GMT", want: 53 * time.Second, ok: true},
		{value: "Sun, 06 Nov 1994 08:59:60 GMT", want: 653 * time.Second, ok: true},
		{value: "Fri, 31 Dec 9999 23:59:59 GMT", want: 24 * time.Hour, ok: true},
		{value: "Mon, 01 Jan 0001 00:00:00 GMT", want: 0, ok: true},
		{value: "Wednesday, 01-Jan-70 00:00:00 GMT", now: now2026, want: 24 * time.Hour, ok: true},
		{value: "Sunday, 06-Nov-94 08:49:37 GMT", now: now2026, want: 0, ok: true},

		{value: "Sun, 06 Nov 1994 08:49:37 gmt"},
		{value: "Sun, 06 Nov 1994 08:49:37 UTC"},
		{value: "Sun, 06 Nov 1994 08:49:37 +0000"},
		{value: "Sun, 06 Nov 1994 08:49:37"},
		{value: "1994-11-06T08:49:37Z"},
		{value: "Sun, 6 Nov 1994 08:49:37 GMT"},
		{value: "Sunday, 06-Nov-94 08:49:37 PST"},
		{value: "Sun, 06 Nov 1994 8:49:37.5 GMT"},
		{value: "Sun,  06 Nov 1994 8:49:37 GMT"},
		{value: "Sun, 06 Nov 1994 24:00:00 GMT"},
		{value: "Sun, 06 Nov 1994 08:60:37 GMT"},
		{value: "Sun, 06 Nov 1994 08:49:61 GMT"},
		{value: "Thu, 31 Nov 1994 08:49:37 GMT"},
		{value: "Sun, 00 Nov 1994 08:49:37 GMT"},
		{value: "Sun, 06 Now 1994 08:49:37 GMT"},
		{value: "Son, 06 Nov 1994 08:49:37 GMT"},
		{value: "Sun Nov  6 08:49:37 1994 GMT"},
		{value: "Sun Nov _6 08:49:37 1994"},
	}
	for _, tt := range tests {
		t.Run(tt.value[:min(len(tt.value), 40)], func(t *testing.T) {
			t.Parallel()
			now := tt.now
			if now.IsZero() {
				now = rfcNow
			}
			got, ok := Parse(tt.value, now, time.Time{}, 24*time.Hour)
			if got != tt.want || ok != tt.ok {
				t.Errorf("Parse(%q) = %v, %v; want %v, %v", tt.value, got, ok, tt.want, tt.ok)
			}
		})
	}
}

// A date is read against both clocks, and the longer wait counts.
func TestParseRetryAfterClocksDiffer(t *testing.T) {
	t.Parallel()
	const value = "Sun, 06 Nov 1994 08:49:37 GMT" // 30 s after rfcNow
	at := func(offset time.Duration) time.Time { return rfcNow.Add(offset) }
	tests := []struct {
		name         string
		now, theirs  time.Time
		longest      time.Duration
		want         time.Duration
		ignoreTheirs bool
	}{
		{name: "clocks agree", now: rfcNow, theirs: rfcNow, want: 30 * time.Second},
		{name: "theirs 10 s behind", now: rfcNow, theirs: at(-10 * time.Second), want: 40 * time.Second},
		{name: "theirs 10 s ahead", now: rfcNow, theirs: at(10 * time.Second), want: 30 * time.Second},
		{name: "due now by ours, 10 s by theirs", now: at(30 * time.Second), theirs: at(20 * time.Second), want: 10 * time.Second},
		{name: "past by ours, 10 s by theirs", now: at(40 * time.Second), theirs: at(20 * time.Second), want: 10 * time.Second},
		{name: "10 s by ours, past by theirs", now: at(20 * time.Second), theirs: at(40 * time.Second), want: 10 * time.Second},
		{name: "past by both", now: at(40 * time.Second), theirs: at(31 * time.Second), want: 0},
		{name: "exactly due by both", now: at(30 * time.Second), theirs: at(30 * time.Second), want: 0},
		{name: "no Date", now: at(20 * time.Second), want: 10 * time.Second},
		{name: "their clock is at 1970: longest", now: rfcNow, theirs: time.Unix(0, 0), longest: time.Minute, want: time.Minute},
		{name: "our fraction of a second counts", now: at(500 * time.Millisecond), want: 29500 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			longest := tt.longest
			if longest == 0 {
				longest = time.Hour
			}
			if got, ok := Parse(value, tt.now, tt.theirs, longest); got != tt.want || !ok {
				t.Errorf("got %v, %v; want %v", got, ok, tt.want)
			}
		})
	}
}

func TestParseHTTPDateCentury(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value string
		now   time.Time
		year  int
	}{
		{"Sunday, 06-Nov-44 08:49:07 GMT", rfcNow, 2044}, // exactly 50 years ahead
		{"Sunday, 06-Nov-44 08:49:08 GMT", rfcNow, 1944}, // a second more
		{"Sunday, 06-Nov-01 08:49:07 GMT", rfcNow, 2001},
		{"Sunday, 06-Nov-93 08:49:07 GMT", rfcNow, 1993},
		{"Sunday, 06-Nov-99 08:49:07 GMT", time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC), 1999},
		{"Sunday, 06-Nov-99 08:49:07 GMT", time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC), 2099},
	}
	for _, tt := range tests {
		if got, ok := ParseDate(tt.value, tt.now); !ok || got.Year() != tt.year {
			t.Errorf("ParseDate(%q) at %d = %v, %v; want the year %d", tt.value, tt.now.Year(), got, ok, tt.year)
		}
	}
}

// The oracle: what is accepted as a date is what the standard library's own
// formats make of the result, and all it formats is accepted.
func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{
		"120", "-1", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"Sun, 06 Nov 1994 08:49:60 GMT", "Sun,  06 Nov 1994 8:49:37 GMT", "99999999999999999999", "Sun Nov 6 08:49:37 1994", "Sun Nov 01 00:00:00 0000",
	} {
		f.Add(s, int64(30))
	}
	const longest = 90 * time.Minute
	f.Fuzz(func(t *testing.T, s string, offset int64) {
		if wait, ok := Parse(s, rfcNow, rfcNow, longest); wait < 0 || wait > longest || !ok && wait != 0 {
			t.Fatalf("Parse(%q) = %v, %v: out of bounds", s, wait, ok)
		}
		if got, ok := ParseDate(s, rfcNow); ok && !formatsTo(got, s) {
			t.Errorf("ParseDate(%q) = %v, which no format gives back", s, got)
		}
		at := rfcNow.Add(time.Duration(offset%(40*365*24*3600)) * time.Second)
		for _, layout := range []string{http.TimeFormat, "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
			if got, ok := ParseDate(at.Format(layout), rfcNow); !ok || !got.Equal(at) {
				t.Errorf("ParseDate(%q) = %v, %v; want %v", at.Format(layout), got, ok, at)
			}
		}
	})
}

// formatsTo reports whether one of the three formats of t is s but for the
// day's name, letter case, asctime's padding and the leap second.
func formatsTo(t time.Time, s string) bool {
	s = strings.ToLower(s)
	if strings.Contains(s, ":60") {
		t = t.Add(-time.Second)
		if i := strings.LastIndex(s, ":60"); t.Second() == 59 {
			s = s[:i] + ":59" + s[i+3:]
		}
	}
	rest := func(s string) string { return strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz") }
	for _, layout := range []string{http.TimeFormat, "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC, "Mon Jan 2 15:04:05 2006", "Mon Jan 02 15:04:05 2006"} {
		if rest(strings.ToLower(t.Format(layout))) == rest(s) {
			return true
		}
	}
	return false
}
