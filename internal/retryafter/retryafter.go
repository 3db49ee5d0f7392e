// Package retryafter reads the header Retry-After as RFC 9110 has it, with all
// its forms of a date, for those who call consumers and for those who call
// producers.
package retryafter

import (
	"strings"
	"time"
)

// Parse reads a Retry-After value (RFC 9110, 10.2.3) and returns the wait it
// asks for, from now, between 0 and longest. ok is false where the value is
// neither whole seconds nor a valid HTTP-date: then it says nothing.
//
// A date counts as the longer of date-now and date-responseDate, so that a
// consumer whose clock is behind ours is not called too early; the zero
// responseDate (no Date header, or not a valid one) leaves only the former.
func Parse(value string, now, responseDate time.Time, longest time.Duration) (wait time.Duration, ok bool) {
	value = strings.Trim(value, " \t")
	if seconds, ok := parseDelaySeconds(value, longest); ok {
		return seconds, true
	}
	date, ok := ParseDate(value, now)
	if !ok {
		return 0, false
	}
	wait = date.Sub(now) // saturates where a Duration cannot hold it
	if !responseDate.IsZero() {
		wait = max(wait, date.Sub(responseDate))
	}
	return min(max(wait, 0), longest), true
}

// parseDelaySeconds reads 1*DIGIT; a number beyond longest, however long, is
// longest.
func parseDelaySeconds(s string, longest time.Duration) (time.Duration, bool) {
	var n int64
	most := int64(longest/time.Second) + 1
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), most)
	}
	if n >= most {
		return longest, s != ""
	}
	return time.Duration(n) * time.Second, s != ""
}

// ParseDate reads an HTTP-date (RFC 9110, 5.6.7) in any of its three
// forms: IMF-fixdate, RFC 850 and asctime. Stricter than http.ParseTime, it
// accepts no zone but GMT; more lenient, it accepts the leap second :60; and it
// reads a two-digit year as the RFC asks: not more than 50 years after now.
// The name of the day must be one, but need not be the right one.
func ParseDate(s string, now time.Time) (time.Time, bool) {
	comma := strings.IndexByte(s, ',')
	switch {
	case comma == 3 && isName(s[:3], shortDays):
		return parseFields(s[3:], ", 02 Jan 2006 15:04:05 GMT", now)
	case comma > 3 && isName(s[:comma], longDays):
		return parseFields(s[comma:], ", 02-Jan-06 15:04:05 GMT", now)
	case comma < 0 && len(s) > 3 && isName(s[:3], shortDays):
		if len(s) == len("Sun Nov 6 08:49:37 1994") && s[3] == ' ' {
			// asctime pads a single-digit day with a space; some do not.
			s = s[:8] + " " + s[8:]
		}
		return parseFields(s[3:], " Jan _2 15:04:05 2006", now)
	}
	return time.Time{}, false
}

var (
	shortDays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	longDays  = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	months    = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
)

func isName(s string, names []string) bool { return indexName(s, names) >= 0 }

func indexName(s string, names []string) int {
	for i, name := range names {
		if strings.EqualFold(s, name) && len(s) == len(name) {
			return i
		}
	}
	return -1
}

// parseFields reads s by a layout in which every field has a fixed width. It is
// written out because time.Parse takes fractions of seconds, runs of spaces
// and one-digit hours that no HTTP-date has.
func parseFields(s, layout string, now time.Time) (time.Time, bool) {
	if len(s) != len(layout) {
		return time.Time{}, false
	}
	f := map[byte]int{}
	shortYear := false
	for i := 0; i < len(layout); {
		field, kind := layoutField(layout[i:])
		text := s[i : i+len(field)]
		switch kind {
		case 'M':
			f['M'] = indexName(text, months) + 1
		case 0:
			if text != field {
				return time.Time{}, false
			}
		default:
			if field == "_2" && text[0] == ' ' {
				text = text[1:]
			}
			n, ok := parseDigits(text)
			if !ok {
				return time.Time{}, false
			}
			f[kind] = n
			shortYear = shortYear || field == "06"
		}
		i += len(field)
	}
	if shortYear {
		f['Y'] = fullYear(f, now)
	}
	return makeDate(f)
}

// layoutField returns the field that a layout begins with and what it holds:
// 0 is literal text.
func layoutField(layout string) (field string, kind byte) {
	for _, known := range [...]struct {
		text string
		kind byte
	}{{"2006", 'Y'}, {"Jan", 'M'}, {"02", 'D'}, {"_2", 'D'}, {"15", 'h'}, {"04", 'm'}, {"05", 's'}, {"06", 'Y'}} {
		if strings.HasPrefix(layout, known.text) {
			return known.text, known.kind
		}
	}
	return layout[:1], 0
}

func parseDigits(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, s != ""
}

// fullYear picks the century of a two-digit year: the latest that is not more
// than 50 years after now.
func fullYear(f map[byte]int, now time.Time) int {
	latest := now.UTC().AddDate(50, 0, 0)
	year := latest.Year()/100*100 + f['Y']
	if time.Date(year, time.Month(f['M']), f['D'], f['h'], f['m'], f['s'], 0, time.UTC).After(latest) {
		year -= 100
	}
	return year
}

func makeDate(f map[byte]int) (time.Time, bool) {
	if f['M'] < 1 || f['D'] < 1 || f['h'] > 23 || f['m'] > 59 || f['s'] > 60 {
		return time.Time{}, false
	}
	day := time.Date(f['Y'], time.Month(f['M']), f['D'], 0, 0, 0, 0, time.UTC)
	if day.Day() != f['D'] { // 31 June
		return time.Time{}, false
	}
	// A leap second is the first second of the next minute.
	return day.Add(time.Duration(f['h'])*time.Hour + time.Duration(f['m'])*time.Minute + time.Duration(f['s'])*time.Second), true
}
