package api

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"

	"postroad/event"
	"postroad/store"
)

// recordKey names a record where it is a member of a document.
type recordKey struct {
	ResourceName      string `json:"resourceName"`
	ResourceRecordKey string `json:"resourceRecordKey"`
}

func recordKeyOf(k event.Key) recordKey { return recordKey(k) }

// check adds what is wrong with a key that stands at pointer.
func (k recordKey) check(faults *event.FieldErrors, pointer string) {
	for _, member := range []struct{ name, value string }{
		{"/resourceName", k.ResourceName}, {"/resourceRecordKey", k.ResourceRecordKey},
	} {
		if member.value == "" || utf8.RuneCountInString(member.value) > event.NameCharactersMax {
			faults.Add(pointer+member.name, "must have 1-"+strconv.Itoa(event.NameCharactersMax)+" characters")
		}
	}
}

// heldKeyDocument is a key that is set aside, as the API shows it.
type heldKeyDocument struct {
	recordKey
	Since         time.Time  `json:"since"`
	Events        int        `json:"events"`
	FirstSequence int64      `json:"firstSequence"`
	Attempts      int        `json:"attempts"`
	NotBefore     *time.Time `json:"notBefore,omitempty"`
	LastStatus    int        `json:"lastStatus,omitzero"`
	LastError     string     `json:"lastError,omitempty"`
}

// listHeldKeys lists the keys that are set aside, by name and key.
func (s *Server) listHeldKeys(c *gin.Context, id string) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	var after [2]string
	if text := []byte(page.after); len(text) > 0 && (hasEscapedNUL(text) || json.Unmarshal(text, &after) != nil) {
		return wrongPageToken()
	}
	ctx := c.Request.Context()
	if _, err := s.config.Store.Get(ctx, id); err != nil {
		return err
	}
	keys, err := s.config.Store.HeldKeys(ctx, id, event.Key{ResourceName: after[0], ResourceRecordKey: after[1]}, page.limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		HeldKeys      []heldKeyDocument `json:"heldKeys"`
		NextPageToken string            `json:"nextPageToken,omitempty"`
	}{HeldKeys: []heldKeyDocument{}}
	keys, answer.NextPageToken = cut(page, keys, store.AsidePageMax, func(k store.HeldKey) string {
		token, _ := json.Marshal([2]string{k.Key.ResourceName, k.Key.ResourceRecordKey}) // strings can be encoded
		return string(token)
	})
	for _, k := range keys {
		answer.HeldKeys = append(answer.HeldKeys, heldKeyDocument{
			recordKey: recordKeyOf(k.Key), Since: k.Since.UTC(), Events: k.Events, FirstSequence: k.FirstSequence,
			Attempts: k.Attempts, NotBefore: utc(k.NotBefore), LastStatus: k.LastStatus, LastError: k.LastError,
		})
	}
	return writeJSON(c, http.StatusOK, answer)
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	in := t.UTC()
	return &in
}

// heldEventDocument is an event that waits behind its key.
type heldEventDocument struct {
	Sequence int64 `json:"sequence"`
	Replay   int64 `json:"replay,omitzero"`
}

// listHeldEvents lists the events that wait behind one key, in order.
func (s *Server) listHeldEvents(c *gin.Context, id string) error {
	values, err := query(c, "resourceName", "resourceRecordKey", "limit", "pageToken")
	if err != nil {
		return err
	}
	key, err := queriedKey(values)
	if err != nil {
		return err
	}
	page, after, err := numberedPage(values)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	if _, err := s.config.Store.Get(ctx, id); err != nil {
		return err
	}
	events, err := s.config.Store.HeldEvents(ctx, id, key, after, page.limit+1)
	if err != nil {
		return err
	}
	if len(events) == 0 && after == 0 {
		return &store.KeyNotHeldError{Key: key}
	}
	answer := struct {
		Events        []heldEventDocument `json:"events"`
		NextPageToken string              `json:"nextPageToken,omitempty"`
	}{Events: []heldEventDocument{}}
	events, answer.NextPageToken = cut(page, events, store.AsidePageMax, func(e store.HeldEvent) string { return numbered(e.Sequence) })
	for _, e := range events {
		answer.Events = append(answer.Events, heldEventDocument{Sequence: e.Sequence, Replay: e.Replay})
	}
	return writeJSON(c, http.StatusOK, answer)
}

func queriedKey(values url.Values) (event.Key, error) {
	for _, name := range []string{"resourceName", "resourceRecordKey"} {
		if value := values.Get(name); value == "" || utf8.RuneCountInString(value) > event.NameCharactersMax {
			return event.Key{}, invalidParameter(name, "is required, and has 1-"+strconv.Itoa(event.NameCharactersMax)+" characters")
		}
	}
	return event.Key{ResourceName: values.Get("resourceName"), ResourceRecordKey: values.Get("resourceRecordKey")}, nil
}

// numberedPage is pageOf for lists whose last key is a number above 0.
func numberedPage(values url.Values) (page, int64, error) {
	p, err := pageOf(values)
	if err != nil || p.after == "" {
		return p, 0, err
	}
	after, err := strconv.ParseInt(p.after, 10, 64)
	if err != nil || after < 1 {
		return p, 0, wrongPageToken()
	}
	return p, after, nil
}

// heldInput names a held key; Sequence is for skipping alone.
type heldInput struct {
	recordKey
	Sequence *int64 `json:"sequence"`
}

// controlHeld is a handler of one kind of control of held keys.
func (s *Server) controlHeld(kind string) func(c *gin.Context, id string) error {
	return func(c *gin.Context, id string) error {
		var input heldInput
		if err := s.readControl(c, &input); err != nil {
			return err
		}
		var faults event.FieldErrors
		input.check(&faults, "")
		request := store.ControlRequest{Kind: kind, Key: event.Key(input.recordKey)}
		if input.Sequence != nil {
			request.Sequence = *input.Sequence
			switch {
			case kind != store.ControlHeldSkip:
				faults.Add("/sequence", "is not a member of this document: only one event can be skipped, not retried or released")
			case request.Sequence < 1:
				faults.Add("/sequence", "must be the first event that waits behind the key")
			}
		}
		if err := faults.Err(); err != nil {
			return err
		}
		return s.control(c, id, request)
	}
}
