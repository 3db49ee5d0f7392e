package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"slices"
	"time"
)

// Bounds of an event's members. Lengths of names are in characters (Unicode
// code points), sizes in bytes.
const (
	NameCharactersMax = 255     // resourceName, resourceRecordKey, eventType, idempotencyKey (bytes there)
	URLCharactersMax  = 8000    // resourceRecordUrl and each entry of related
	EventBytesMax     = 1 << 20 // one event as it was sent
	AttributesMax     = 64      // entries of attributes
	RelatedMax        = 64      // entries of related
	FeedTypesMax      = 64      // entries of feedTypes
)

// Event is one entry of a feed's log: the notice that a record changed
// (RESO RCP-27 EntityEvent), with optional data of the producer's own.
type Event struct {
	// Sequence is the place in the feed, from 1; it follows commit order and
	// never changes (RCP-27: EntityEventSequence). Zero: not yet assigned.
	Sequence int64 `json:"sequence"`
	// ResourceName names the kind of record, 1-255 characters.
	ResourceName string `json:"resourceName"`
	// ResourceRecordKey is the record's primary key, always a string, 1-255
	// characters.
	ResourceRecordKey string `json:"resourceRecordKey"`
	// ResourceRecordURL is where the record can be fetched, opaque, up to
	// 8,000 characters; empty: none.
	ResourceRecordURL string `json:"resourceRecordUrl,omitempty"`
	// EventType is the producer's word for what happened; empty: none.
	EventType string `json:"eventType,omitempty"`
	// FeedTypes are the display entitlements of the event (Data Dictionary 2.1).
	FeedTypes []string `json:"feedTypes,omitempty"`
	// Attributes are the producer's own labels.
	Attributes map[string]string `json:"attributes,omitempty"`
	// Related are URLs of other records the event speaks of.
	Related []string `json:"related,omitempty"`
	// Bulk marks an event made by a bulk operation.
	Bulk bool `json:"bulk,omitzero"`
	// OccurredAt is when it happened by the producer's clock: RFC 3339,
	// returned byte for byte as it was sent; empty: not said.
	OccurredAt string `json:"occurredAt,omitempty"`
	// RecordedAt is when the log took the event in, by PostgreSQL's clock; it
	// never goes back within a feed.
	RecordedAt time.Time `json:"recordedAt"`
	// Data is any JSON, kept byte for byte; nil: none.
	Data json.RawMessage `json:"data,omitempty"`
	// ErasedAt is when Data, Attributes and Related were erased; zero: they were
	// not.
	ErasedAt time.Time `json:"erasedAt,omitzero"`
	// IdempotencyKey makes publishing the event again a repeat, not a second
	// event; at most 255 bytes; empty: none. It is not returned on reading.
	IdempotencyKey string `json:"-"`
	// Trace is the W3C trace context (version 00, sampled) that the event was
	// published in; empty: it is in no trace. It is neither returned on reading
	// nor part of the content that an idempotency key stands for.
	Trace string `json:"-"`
}

// Key is the identity of the record an event speaks of; order is promised per
// Key where a subscriber has more than one lane.
type Key struct {
	ResourceName      string `json:"resourceName"`
	ResourceRecordKey string `json:"resourceRecordKey"`
}

// Key returns the identity of the record the event speaks of.
func (e *Event) Key() Key { return Key{e.ResourceName, e.ResourceRecordKey} }

// Size is about how many bytes the event holds in memory; queues, rings and
// pages are bounded by it.
func (e *Event) Size() int {
	const fixed = 256
	n := fixed + len(e.ResourceName) + len(e.ResourceRecordKey) + len(e.ResourceRecordURL) +
		len(e.EventType) + len(e.OccurredAt) + len(e.Data) + len(e.IdempotencyKey) + len(e.Trace)
	for _, s := range e.FeedTypes {
		n += 16 + len(s)
	}
	for _, s := range e.Related {
		n += 16 + len(s)
	}
	for k, v := range e.Attributes {
		n += 48 + len(k) + len(v)
	}
	return n
}

// ContentHash is the SHA-256 that decides whether an idempotency key came
// again with the same content: over the decoded members in the order of the
// Event type, each length-prefixed, without idempotencyKey, recordedAt, erasedAt
// and the trace; data counts byte for byte.
func (e *Event) ContentHash() [sha256.Size]byte {
	h := sha256.New()
	writeInt(h, e.Sequence)
	writeString(h, e.ResourceName)
	writeString(h, e.ResourceRecordKey)
	writeString(h, e.ResourceRecordURL)
	writeString(h, e.EventType)
	writeStrings(h, e.FeedTypes)
	names := make([]string, 0, len(e.Attributes))
	for name := range e.Attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	writeInt(h, int64(len(names)))
	for _, name := range names {
		writeString(h, name)
		writeString(h, e.Attributes[name])
	}
	writeStrings(h, e.Related)
	if e.Bulk {
		writeInt(h, 1)
	} else {
		writeInt(h, 0)
	}
	writeString(h, e.OccurredAt)
	if e.Data == nil {
		writeInt(h, -1) // absent data differs from data that is empty
	} else {
		writeString(h, string(e.Data))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}

func writeInt(h hash.Hash, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func writeString(h hash.Hash, s string) {
	writeInt(h, int64(len(s)))
	h.Write([]byte(s))
}

func writeStrings(h hash.Hash, list []string) {
	writeInt(h, int64(len(list)))
	for _, s := range list {
		writeString(h, s)
	}
}
