package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"postroad/event"
	"postroad/internal/apiclient"
)

const explainLong = `Say what became of an event, or of each event of a record, the newest first: for
one subscriber, or for every one of the feed.

` + keyHelp + `
What has no slash is an event's sequence.

delivered      it was accepted: when, and by which attempt
waiting        it was not sent yet, or was refused so far
held           it waits behind an event of its key that is refused, or is that one
deadLettered   it was given up
filtered       the subscriber's filter does not let it pass
compacted      a newer event of the record was sent in its place
skippedBySeek  a seek moved past it
beforeStart    the subscriber began above it
removed        the feed keeps it no longer, and no delivery is on record
settled        it is dealt with, and no delivery is on record: requests are kept for
               some days, and are on record up to a second late`

// explainedDelivery is what the command reads of a delivery.
type explainedDelivery struct {
	Subscriber       string `json:"subscriber"`
	Sequence         int64  `json:"sequence"`
	State            string `json:"state"`
	Reason           string `json:"reason"`
	SubscriberReason string `json:"subscriberReason"`
	Replay           int64  `json:"replay"`
	DeadLetter       *struct {
		Replay int64 `json:"replay"`
	} `json:"deadLetter"`
}

// explanation collects deliveries, as they are shown and as the server wrote them.
type explanation struct {
	list []explainedDelivery
	raw  []json.RawMessage
	// more says that the record has older events.
	more bool
}

func (p *program) explainCommand() *cobra.Command {
	var subscriber, feed string
	var limit int
	command := &cobra.Command{
		Use:     "explain RESOURCE/KEY|SEQUENCE",
		Short:   "Say what became of an event or a record: did it arrive, and when?",
		Long:    explainLong,
		Example: "  postroad explain Property/235021 --subscriber acme\n  postroad explain 1234 --feed listings",
		Args:    cobra.ExactArgs(1),
	}
	flags := command.Flags()
	flags.StringVar(&subscriber, "subscriber", "", "only this `subscriber`, by its own token too")
	flags.StringVar(&feed, "feed", "default", "the `feed` whose subscribers are meant")
	flags.IntVar(&limit, "limit", 20, "the most `events` of a record that are shown")
	command.RunE = p.action(func(ctx context.Context, args []string) error {
		if subscriber != "" && flags.Changed("feed") {
			return usagef("--subscriber and --feed exclude each other: a subscriber has one feed")
		}
		if limit < 1 {
			return usagef("--limit %d: it must be at least 1", limit)
		}
		sequence, err := strconv.ParseInt(args[0], 10, 64)
		var key event.Key
		if err != nil {
			if key, err = parseKey(args[0]); err != nil {
				return usagef("%q is no sequence and no key: write a key as RESOURCE/KEY, such as Property/235021", args[0])
			}
		} else if sequence < 1 {
			return usagef("%d is no sequence: they are numbered from 1", sequence)
		}
		c, err := p.client(ctx)
		if err != nil {
			return err
		}
		x := &explanation{}
		switch {
		case subscriber != "":
			err = x.ofSubscriber(ctx, c, subscriber, sequence, key, limit)
		case sequence != 0:
			err = x.ofEvent(ctx, c, feed, sequence)
		default:
			err = x.ofRecord(ctx, c, feed, key, limit)
		}
		if err != nil {
			return err
		}
		return p.printExplanation(x, limit)
	})
	return command
}

// ofSubscriber asks about one subscriber.
func (x *explanation) ofSubscriber(ctx context.Context, c *apiclient.Client, id string, sequence int64, key event.Key, limit int) error {
	query := url.Values{"sequence": {decimal(sequence)}}
	if key != (event.Key{}) {
		query = url.Values{"resourceName": {key.ResourceName}, "resourceRecordKey": {key.ResourceRecordKey}}
	}
	for {
		query.Set("limit", strconv.Itoa(min(limit-len(x.list), listPageMax)))
		var page struct {
			Deliveries    []json.RawMessage `json:"deliveries"`
			FilteredBy    string            `json:"filteredBy"`
			NextPageToken string            `json:"nextPageToken"`
		}
		if _, err := c.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: subscriberPath(id, "/deliveries?") + query.Encode()}, &page); err != nil {
			return err
		}
		if err := x.add(page.Deliveries); err != nil {
			return err
		}
		switch {
		case page.FilteredBy != "":
			none, err := json.Marshal(map[string]string{
				"subscriber": id, "state": "filtered", "reason": "its filter lets no event of " + key.ResourceName + " pass",
			})
			if err != nil {
				return fmt.Errorf("encode answer: %w", err)
			}
			return x.add([]json.RawMessage{none})
		case page.NextPageToken == "" && len(x.list) == 0:
			return notThere(key)
		case page.NextPageToken == "":
			return nil
		case len(x.list) >= limit:
			x.more = true
			return nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

// ofEvent asks about all subscribers of a feed.
func (x *explanation) ofEvent(ctx context.Context, c *apiclient.Client, feed string, sequence int64) error {
	_, raw, err := listAll[explainedDelivery](ctx, c, "/v1/feeds/"+url.PathEscape(feed)+"/events/"+decimal(sequence)+"/deliveries", "deliveries", nil)
	if err != nil {
		return err
	}
	return x.add(raw)
}

// ofRecord asks about each of the newest events of a record.
func (x *explanation) ofRecord(ctx context.Context, c *apiclient.Client, feed string, key event.Key, limit int) error {
	path := "/v1/feeds/" + url.PathEscape(feed) + "/records/" + url.PathEscape(key.ResourceName) + "/" + url.PathEscape(key.ResourceRecordKey) + "/events?"
	query, shown := url.Values{}, 0
	for {
		query.Set("limit", strconv.Itoa(min(limit-shown, listPageMax)))
		var page struct {
			Events []struct {
				Sequence int64 `json:"sequence"`
			} `json:"events"`
			NextPageToken string `json:"nextPageToken"`
		}
		if _, err := c.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path + query.Encode()}, &page); err != nil {
			return err
		}
		for _, e := range page.Events {
			if err := x.ofEvent(ctx, c, feed, e.Sequence); err != nil {
				return err
			}
		}
		shown += len(page.Events)
		switch {
		case page.NextPageToken == "" && shown == 0:
			return notThere(key)
		case page.NextPageToken == "":
			return nil
		case shown >= limit:
			x.more = true
			return nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

func (x *explanation) add(raw []json.RawMessage) error {
	for _, text := range raw {
		var d explainedDelivery
		if err := json.Unmarshal(text, &d); err != nil {
			return fmt.Errorf("read the list of deliveries: %w", err)
		}
		x.list, x.raw = append(x.list, d), append(x.raw, text)
	}
	return nil
}

// notThere is the answer where the feed has no event of a record.
func notThere(key event.Key) error {
	detail := "the feed has no event of " + keyText(key)
	return &apiclient.Problem{
		Type: "/problems/not-found", Status: http.StatusNotFound, Title: "There is no such thing",
		Detail: detail, Errors: []apiclient.Fault{{Parameter: "key", Detail: detail}},
	}
}

func (p *program) printExplanation(x *explanation, limit int) error {
	if p.json {
		return p.encode(struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			MoreEvents bool              `json:"moreEvents"`
		}{x.raw, x.more})
	}
	if len(x.list) == 0 {
		p.printf("the feed has no subscribers\n")
		return nil
	}
	t := p.table("SUBSCRIBER", "SEQUENCE", "STATE", "")
	for _, d := range x.list {
		sequence, text := decimal(d.Sequence), d.Reason
		if d.Sequence == 0 {
			sequence = "-"
		}
		if d.SubscriberReason != "" {
			text += "; " + d.SubscriberReason
		}
		if d.Replay != 0 && d.DeadLetter == nil {
			text += fmt.Sprintf("; replay %d will send it", d.Replay)
		}
		t.row(d.Subscriber, sequence, d.State, text)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if x.more {
		p.printf("the %s shown; there may be older ones: --limit\n", count(int64(limit), "newest event"))
	}
	return nil
}
