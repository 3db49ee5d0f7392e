package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
)

// sourceDocument is a feed's source as the API shows it.
type sourceDocument struct {
	*event.Source
	Status sourceStatus `json:"status"`
}

// States of a source.
const (
	sourceWaiting   = "waiting"   // not read yet
	sourceFollowing = "following" // read to its end, or as far as the horizon lets it
	sourceFailing   = "failing"   // the last reading failed
)

// sourceStatus is what became of a source.
type sourceStatus struct {
	State string `json:"state"`
	// Reason is a sentence.
	Reason string `json:"reason"`
	// LastSequence is the feed's head, SourceHead the highest sequence that the
	// source showed; what is between them waits for the horizon, or to be read.
	LastSequence int64 `json:"lastSequence"`
	SourceHead   int64 `json:"sourceHead"`
	Lag          int64 `json:"lag"`
	// Late counts events that came too late to be taken; LateSequences are the
	// latest.
	Late          int64      `json:"late"`
	LateSequences []int64    `json:"lateSequences,omitempty"`
	LateAt        *time.Time `json:"lateAt,omitempty"`
	LastReadAt    *time.Time `json:"lastReadAt,omitempty"`
	LastError     string     `json:"lastError,omitempty"`
	FailingSince  *time.Time `json:"failingSince,omitempty"`
	RetryAt       *time.Time `json:"retryAt,omitempty"`
}

// lateShownMax is how many of the latest late sequences are shown.
const lateShownMax = 100

// sourceDocumentOf shows a feed's source. Its address, and errors, which name it,
// are for admins.
func sourceDocumentOf(f eventlog.Feed, admin bool) *sourceDocument {
	if f.Source == nil {
		return nil
	}
	was := f.Source.State
	d := &sourceDocument{Source: &f.Source.Config, Status: sourceStatus{
		State: sourceWaiting, Reason: "No worker has read the source yet.", LastSequence: f.Head,
		SourceHead: was.SourceHead, Lag: max(was.SourceHead-f.Head, 0), Late: was.Late,
		LateSequences: was.LateSequences[max(len(was.LateSequences)-lateShownMax, 0):],
		LateAt:        shownTime(was.LateAt), LastReadAt: shownTime(was.ReadAt), LastError: was.Error,
		FailingSince: shownTime(was.FailingSince), RetryAt: shownTime(was.RetryAt),
	}}
	switch s := &d.Status; {
	case was.Error != "":
		s.State, s.Reason = sourceFailing, fmt.Sprintf("The source could not be read; it is tried again at %s.", was.RetryAt.Format("15:04:05 MST"))
	case !was.ReadAt.IsZero() && s.Lag == 0:
		s.State, s.Reason = sourceFollowing, "All that the source showed is in the feed."
	case !was.ReadAt.IsZero():
		s.State, s.Reason = sourceFollowing, "Some of what the source showed waits for the horizon, or to be read."
	}
	if was.Late > 0 {
		d.Status.Reason += fmt.Sprintf(" %d events came too late to be taken.", was.Late)
	}
	if !admin {
		d.Source, d.Status.LastError = nil, ""
	}
	return d
}

func shownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// sourceInput is a source as it may be sent: its status is taken and dropped.
type sourceInput struct {
	event.Source
	Status any `json:"status"`
}

// source checks a source as it was sent, fills in the defaults and seals its
// secrets; stored are those it may keep.
func (s *Server) source(feed string, sent event.Source, stored event.SourceSecrets) (*eventlog.SourceChange, error) {
	sent = sent.Defaulted()
	faults := sent.Validate(s.config.AllowHTTPEndpoints || s.config.AllowLoopback)
	for pointer, address := range map[string]string{"/source/url": sent.URL, "/source/auth/tokenUrl": sent.Auth.TokenURL} {
		blocked := (*delivery.BlockedError)(nil)
		if address != "" && !named(faults, pointer) && errors.As(s.client.Guard().CheckEndpoint(address), &blocked) {
			faults.Add(pointer, blocked.Reason)
		}
	}
	public, secrets, missing := sent.SplitSecrets(stored)
	faults = append(faults, missing...)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	sealed, err := s.config.Store.SealSource(feed, secrets)
	if err != nil {
		return nil, err
	}
	return &eventlog.SourceChange{Config: &public, Sealed: sealed}, nil
}

// changedSource is a feed's source with a merge patch applied; nil members were
// null, and remove it.
func (s *Server) changedSource(feed eventlog.Feed, members map[string]any) (*eventlog.SourceChange, error) {
	if members == nil {
		return &eventlog.SourceChange{}, nil
	}
	var stored event.SourceSecrets
	target := map[string]any{}
	if feed.Source != nil {
		var err error
		if stored, err = s.config.Store.OpenSource(feed.Name, feed.Source.Sealed); err != nil {
			return nil, err
		}
		was, err := json.Marshal(feed.Source.Config)
		if err != nil {
			return nil, fmt.Errorf("encode source: %w", err)
		}
		if err := json.Unmarshal(was, &target); err != nil {
			return nil, fmt.Errorf("decode source: %w", err)
		}
	}
	patched, err := json.Marshal(map[string]any{"source": merge(target, members)})
	if err != nil {
		return nil, fmt.Errorf("encode patched source: %w", err)
	}
	var whole struct {
		Source sourceInput `json:"source"`
	}
	if err := decodeDocument(patched, &whole); err != nil {
		return nil, err
	}
	return s.source(feed.Name, whole.Source.Source, stored)
}
