package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"postroad/event"
)

// record is an EntityEvent as servers give it. What else they give is not read.
type record struct {
	Sequence json.RawMessage `json:"EntityEventSequence"`
	Name     json.RawMessage `json:"ResourceName"`
	Key      json.RawMessage `json:"ResourceRecordKey"`
	URL      json.RawMessage `json:"ResourceRecordUrl"`
	// FeedTypes is of the Data Dictionary 2.1: a collection, or one enumeration
	// with flags.
	FeedTypes json.RawMessage `json:"FeedTypes"`
	// EventType is a local field.
	EventType json.RawMessage `json:"EventType"`
}

// decodeRecord reads one record. place names it in errors.
func decodeRecord(text json.RawMessage) (event.Event, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return event.Event{}, errors.New("is not an object")
	}
	var e event.Event
	var err error
	if e.Sequence, err = decodeSequence(r.Sequence); err != nil {
		return e, fmt.Errorf("EntityEventSequence %w", err)
	}
	for _, m := range []struct {
		name     string
		text     json.RawMessage
		to       *string
		required bool
		most     int
	}{
		{"ResourceName", r.Name, &e.ResourceName, true, event.NameCharactersMax},
		{"ResourceRecordKey", r.Key, &e.ResourceRecordKey, true, event.NameCharactersMax},
		{"ResourceRecordUrl", r.URL, &e.ResourceRecordURL, false, event.URLCharactersMax},
	} {
		if *m.to, err = decodeText(m.text, m.required, m.most); err != nil {
			return e, fmt.Errorf("%s %w", m.name, err)
		}
	}
	// A local field of that name may hold anything: what is no event type of ours
	// is none.
	e.EventType, _ = decodeText(r.EventType, false, event.NameCharactersMax)
	if e.FeedTypes, err = decodeFeedTypes(r.FeedTypes); err != nil {
		return e, fmt.Errorf("FeedTypes %w", err)
	}
	return e, nil
}

func absent(text json.RawMessage) bool { return len(text) == 0 || bytes.Equal(text, []byte("null")) }

// decodeSequence reads a number, or the string that servers give for an Int64
// to clients that ask for IEEE754Compatible, and some to all.
func decodeSequence(text json.RawMessage) (int64, error) {
	if absent(text) {
		return 0, errors.New("is missing")
	}
	digits := string(text)
	if digits[0] == '"' {
		if err := json.Unmarshal(text, &digits); err != nil {
			return 0, fmt.Errorf("is %s, which is no number", excerpt(text))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("is %s: it must be a whole number between 0 and 9223372036854775807", excerpt(text))
	}
	return n, nil
}

// decodeText reads a string. Keys were numbers in early examples of RCP-27: they
// count as their digits.
func decodeText(text json.RawMessage, required bool, most int) (string, error) {
	if absent(text) {
		if required {
			return "", errors.New("is missing")
		}
		return "", nil
	}
	var s string
	switch c := text[0]; {
	case c == '"':
		if err := json.Unmarshal(text, &s); err != nil {
			return "", fmt.Errorf("is %s, which is no string", excerpt(text))
		}
	case c == '-' || c >= '0' && c <= '9':
		s = string(text)
	default:
		return "", fmt.Errorf("is %s, which is no string", excerpt(text))
	}
	switch {
	case s == "" && required:
		return "", errors.New("is empty")
	case utf8.RuneCountInString(s) > most:
		return "", fmt.Errorf("is longer than %d characters", most)
	case strings.IndexByte(s, 0) >= 0:
		return "", errors.New("holds the character U+0000")
	}
	return s, nil
}

func decodeFeedTypes(text json.RawMessage) ([]string, error) {
	if absent(text) {
		return nil, nil
	}
	var list []string
	if text[0] == '"' {
		var flags string
		if err := json.Unmarshal(text, &flags); err != nil {
			return nil, fmt.Errorf("is %s, which is no string", excerpt(text))
		}
		list = strings.Split(flags, ",")
	} else if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("is %s, which is no list of strings", excerpt(text))
	}
	kept := list[:0]
	for _, one := range list {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if utf8.RuneCountInString(one) > event.NameCharactersMax || strings.IndexByte(one, 0) >= 0 {
			return nil, fmt.Errorf("has an entry that is longer than %d characters, or holds U+0000", event.NameCharactersMax)
		}
		kept = append(kept, one)
	}
	if len(kept) > event.FeedTypesMax {
		return nil, fmt.Errorf("has more than %d entries", event.FeedTypesMax)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, nil
}

// excerptBytesMax bounds what errors quote of an answer.
const excerptBytesMax = 120

func excerpt(text []byte) string {
	s := strings.ToValidUTF8(string(text[:min(len(text), excerptBytesMax)]), "")
	if len(text) > excerptBytesMax {
		s += "..."
	}
	return strconv.Quote(s)
}

// odataMessage is what an OData error body says, as a clause of an error.
func odataMessage(body []byte) string {
	var document struct {
		Error struct {
			Message json.RawMessage `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &document) != nil || absent(document.Error.Message) {
		return ""
	}
	var message string
	if json.Unmarshal(document.Error.Message, &message) != nil {
		// OData 3 had an object there.
		var old struct{ Value string }
		if json.Unmarshal(document.Error.Message, &old) != nil || old.Value == "" {
			return ""
		}
		message = old.Value
	}
	return ": " + excerpt([]byte(message))
}
