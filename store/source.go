package store

import (
	"encoding/json"
	"fmt"

	"postroad/event"
)

// sourceName is what a feed's sealed source is bound to. No subscriber's id has a
// colon.
func sourceName(feed string) string { return "source:" + feed }

// SealSource seals the secrets of a feed's source.
func (s *Store) SealSource(feed string, secrets event.SourceSecrets) ([]byte, error) {
	if s.sealer == nil {
		return nil, ErrNoSealer
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return nil, fmt.Errorf("encode secrets of source: %w", err)
	}
	return s.sealer.Seal(sourceName(feed), plain), nil
}

// OpenSource opens what SealSource sealed for the same feed.
func (s *Store) OpenSource(feed string, sealed []byte) (secrets event.SourceSecrets, err error) {
	if s.sealer == nil {
		return secrets, ErrNoSealer
	}
	plain, err := s.sealer.Open(sourceName(feed), sealed)
	if err != nil {
		return secrets, fmt.Errorf("open secrets of source: %w", err)
	}
	if json.Unmarshal(plain, &secrets) != nil {
		return secrets, ErrSealBroken // the decoding error could quote what was decoded
	}
	return secrets, nil
}
