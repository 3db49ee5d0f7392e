package main

import (
	"fmt"
	"net/http"
	"time"
)

// finding is one thing that the consumer's log shows.
type finding struct {
	ok   bool
	text string
}

// checkArrivals judges a consumer's log: what was owed is events 1 to owed.
func checkArrivals(log []arrival, owed int64) []finding {
	return []finding{checkOrder(log, owed), checkAnswers(log), checkSignatures(log), checkSilence(log)}
}

// checkOrder wants each event applied once, in order, from the first on.
func checkOrder(log []arrival, owed int64) finding {
	var last int64
	for _, a := range log {
		if !a.Applied {
			continue
		}
		if a.Sequence != last+1 {
			return finding{false, fmt.Sprintf("event %d was applied after event %d", a.Sequence, last)}
		}
		last = a.Sequence
	}
	if last < owed {
		return finding{false, fmt.Sprintf("only %d of %s arrived", last, count(owed, "event"))}
	}
	return finding{true, count(last, "event") + ", each applied once, in order"}
}

// checkAnswers wants each event to have been asked for no more often than it
// was refused, but for repeats after a crash, which are named.
func checkAnswers(log []arrival) finding {
	var taken, asked, failed, repeats, other int
	for _, a := range log {
		switch {
		case a.Applied:
			taken++
		case a.Status == http.StatusTooManyRequests:
			asked++
		case a.Status == http.StatusInternalServerError:
			failed++
		case a.Status == http.StatusOK:
			repeats++
		default:
			other++
		}
	}
	text := fmt.Sprintf("%s: %d taken, %d answered 429, %d answered 500", count(int64(len(log)), "request"), taken, asked, failed)
	if repeats > 0 {
		text += fmt.Sprintf(", %d recognized as repeats", repeats)
	}
	if other > 0 {
		return finding{false, text + fmt.Sprintf(", %d refused", other)}
	}
	return finding{asked == 1 && failed == 1, text}
}

func checkSignatures(log []arrival) finding {
	var bad int
	for _, a := range log {
		if a.Status == http.StatusUnauthorized {
			bad++
		}
	}
	if bad > 0 {
		return finding{false, count(int64(bad), "signature") + " did not verify"}
	}
	return finding{len(log) > 0, count(int64(len(log)), "signature") + " verified"}
}

// checkSilence wants no request between an answer with Retry-After and the end
// of the wait it asked for.
func checkSilence(log []arrival) finding {
	shortest := time.Duration(-1)
	for i, a := range log {
		if a.RetryAfter == 0 || i+1 == len(log) {
			continue
		}
		wait := time.Duration(a.RetryAfter) * time.Second
		silent := log[i+1].At.Sub(a.Answered)
		if silent < wait {
			return finding{false, fmt.Sprintf("a request came %.2f s after the 429 that asked for %.0f s", silent.Seconds(), wait.Seconds())}
		}
		if shortest < 0 || silent < shortest {
			shortest = silent
		}
	}
	if shortest < 0 {
		return finding{false, "no answer asked for a wait"}
	}
	return finding{true, fmt.Sprintf("silence for %.2f s after the 429 that asked for %.0f s", shortest.Seconds(), demoRetryAfter.Seconds())}
}

// verdict prints what the consumer found; the demo fails if anything is wrong.
func (d *demo) verdict() error {
	d.p.printf("\nThe consumer checked its own log:\n")
	failed := false
	for _, f := range checkArrivals(d.consumer.since(0), d.total) {
		word := "ok  "
		if !f.ok {
			word, failed = "FAIL", true
		}
		d.p.printf("  %s  %s\n", word, f.text)
	}
	d.p.printf("\n")
	if failed {
		return fmt.Errorf("the consumer's log disagrees with what Postroad promises")
	}
	return nil
}
