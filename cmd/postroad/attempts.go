package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/apiclient"
)

// attemptDocument is what the command reads of an attempt.
type attemptDocument struct {
	StartedAt     string  `json:"startedAt"`
	FirstSequence int64   `json:"firstSequence"`
	LastSequence  int64   `json:"lastSequence"`
	EventCount    int     `json:"eventCount"`
	Attempt       int     `json:"attempt"`
	Class         string  `json:"class"`
	Status        *int    `json:"status"`
	DurationMs    float64 `json:"durationMs"`
	Error         string  `json:"error"`
	RetryAfter    string  `json:"retryAfter"`
	Replay        int64   `json:"replay"`
	Compacted     int64   `json:"compacted"`
}

func (p *program) attemptsCommand() *cobra.Command {
	var limit int
	var failures bool
	command := &cobra.Command{
		Use:   "attempts ID",
		Short: "Show a subscriber's requests, the newest first",
		Args:  cobra.ExactArgs(1),
		RunE: p.action(func(ctx context.Context, args []string) error {
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if failures {
				query.Set("failures", "true")
			}
			var d struct {
				Attempts []attemptDocument `json:"attempts"`
			}
			answer, err := p.call(ctx, apiclient.Request{Method: http.MethodGet, Path: subscriberPath(args[0], "/attempts?") + query.Encode()}, &d)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(answer.Body)
			}
			return p.printAttempts(d.Attempts)
		}),
	}
	command.Flags().IntVar(&limit, "limit", 20, "the most `requests` shown, up to 1,000")
	command.Flags().BoolVar(&failures, "failures", false, "leave out what was answered 2xx")
	return command
}

func (p *program) printAttempts(list []attemptDocument) error {
	t := p.table("STARTED", "SEQUENCE", "EVENTS", "ATTEMPT", "ANSWER", "MS", "NOTE")
	for _, a := range list {
		sequence := decimal(a.FirstSequence)
		if a.LastSequence != a.FirstSequence {
			sequence += "-" + decimal(a.LastSequence)
		}
		answer := "none"
		if a.Status != nil {
			answer = strconv.Itoa(*a.Status)
		}
		t.row(a.StartedAt, sequence, strconv.Itoa(a.EventCount), strconv.Itoa(a.Attempt), answer, fmt.Sprintf("%.1f", a.DurationMs), a.note())
	}
	return t.flush()
}

func (a attemptDocument) note() string {
	var notes []string
	if a.Replay != 0 {
		notes = append(notes, "replay "+decimal(a.Replay))
	}
	if a.Compacted != 0 {
		notes = append(notes, "in place of "+count(a.Compacted, "older event"))
	}
	switch {
	case a.RetryAfter != "":
		notes = append(notes, "Retry-After: "+a.RetryAfter)
	case a.Error != "":
		notes = append(notes, a.Error)
	}
	return strings.Join(notes, ", ")
}
