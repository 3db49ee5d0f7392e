package api

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"postroad/event"
)

const contentTypeMergePatch = "application/merge-patch+json"

// optional tells a member that is null from one that is absent.
type optional[T any] struct {
	set   bool
	value T
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom; null is set, to the zero
// value.
func (o *optional[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	o.set = true
	return json.UnmarshalDecode(dec, &o.value)
}

// subscriberPatch is a merge patch of a subscriber.
type subscriberPatch struct{ members map[string]any }

// readPatch reads a patch as strictly as the document itself: a member that no
// subscriber has is an error, not a removal of nothing.
func readPatch(text []byte) (*subscriberPatch, error) {
	var typed subscriberInput
	if err := decodeDocument(text, &typed); err != nil {
		return nil, err
	}
	p := &subscriberPatch{}
	if err := json.Unmarshal(text, &p.members, keepNumbers); err != nil {
		return nil, malformedJSON(text, err)
	}
	for _, name := range []string{"feed", "start", "id"} {
		if value, given := p.members[name]; given && value == nil {
			return nil, invalidAt("/"+name, immutableDetail(name))
		}
	}
	if signing, ok := p.members["signing"].(map[string]any); ok {
		if value, given := signing["secret"]; given && value == nil {
			return nil, invalidAt("/signing/secret", "cannot be removed: set scheme to none, or use signing-secret/rotate")
		}
	}
	return p, nil
}

// keepNumbers reads numbers as they are written, not as floats.
var keepNumbers = json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, v *any) error {
	if dec.PeekKind() != '0' {
		return errors.ErrUnsupported // the default way
	}
	number, err := dec.ReadValue()
	*v = number.Clone()
	return err
}))

// apply merges the patch into a subscriber.
func (p *subscriberPatch) apply(was event.Subscriber) (event.Subscriber, error) {
	text, err := json.Marshal(was)
	if err != nil {
		return was, fmt.Errorf("encode subscriber: %w", err)
	}
	var target map[string]any
	if err := json.Unmarshal(text, &target, keepNumbers); err != nil {
		return was, fmt.Errorf("decode subscriber: %w", err)
	}
	p.removeMarks(target)
	text, err = json.Marshal(merge(target, p.members))
	if err != nil {
		return was, fmt.Errorf("encode patched subscriber: %w", err)
	}
	var input subscriberInput
	err = decodeDocument(text, &input)
	return input.Subscriber, err
}

// removeMarks makes the removal of a secret remove the mark that stands for it
// in the document, which would otherwise keep it.
func (p *subscriberPatch) removeMarks(target map[string]any) {
	if auth, ok := p.members["auth"].(map[string]any); ok {
		if stored, ok := target["auth"].(map[string]any); ok {
			for _, name := range []string{"token", "password", "value"} {
				if value, given := auth[name]; given && value == nil {
					delete(stored, name+"Set")
				}
			}
		}
	}
	endpoint, ok := p.members["endpoint"].(map[string]any)
	if !ok {
		return
	}
	headers, given := endpoint["headers"]
	stored, ok := target["endpoint"].(map[string]any)
	if !given || !ok {
		return
	}
	changes, ok := headers.(map[string]any)
	if !ok {
		delete(stored, "headersSet") // null: all of them
		return
	}
	if set, ok := stored["headersSet"].([]any); ok {
		stored["headersSet"] = slices.DeleteFunc(set, func(name any) bool {
			text, _ := name.(string)
			value, given := changes[text]
			return given && value == nil
		})
	}
}

// merge is the function of RFC 7396 §2.
func merge(target any, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	for name, value := range changes {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = merge(merged[name], value)
		}
	}
	return merged
}
