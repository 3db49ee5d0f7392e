package odata

import (
	"time"

	"postroad/event"
)

// Type is the type of a value: a primitive type of OData (OData-CSDLXML 3.3) or
// that of null, which fits all others.
type Type uint8

// Types of values. A property is of type Int64, String or DateTimeOffset;
// expressions are of any of them.
const (
	Null Type = iota
	Boolean
	Int64
	Decimal
	String
	DateTimeOffset
)

var typeNames = map[Type]string{
	Null: "null", Boolean: "Edm.Boolean", Int64: "Edm.Int64", Decimal: "Edm.Decimal",
	String: "Edm.String", DateTimeOffset: "Edm.DateTimeOffset",
}

// String is the type's name in metadata.
func (t Type) String() string { return typeNames[t] }

// Property is a structural property of an entity type (OData-CSDLXML 7).
type Property struct {
	Name string
	Type Type
	// Collection: the values are lists of Type, never null, without null in them.
	Collection bool
	// Nullable: there may be no value.
	Nullable bool
	// MaxLength is the most characters of a String; 0: not said.
	MaxLength int
	// Precision is the number of digits of a DateTimeOffset's fraction of a second.
	Precision int
}

// typeName is the property's type as metadata spells it.
func (p *Property) typeName() string {
	if p.Collection {
		return "Collection(" + p.Type.String() + ")"
	}
	return p.Type.String()
}

// EntityType declares what may be asked of an entity set. It is not changed once
// it is in use.
type EntityType struct {
	// Namespace qualifies the name in metadata.
	Namespace string
	// Name is that of the type and of its entity set.
	Name string
	// Key is the name of the one key property: an Int64 that is never null.
	Key string
	// Properties are in the order in which answers show them.
	Properties []*Property
}

// Property returns the property of that name, which is case-sensitive
// (OData-CSDLXML 15.2); nil: there is none.
func (t *EntityType) Property(name string) *Property {
	for _, p := range t.Properties {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Names of EntityEvent's properties: those of the Data Dictionary, and the local
// fields EventType and EntityEventTimestamp.
const (
	Sequence          = "EntityEventSequence"
	ResourceName      = "ResourceName"
	ResourceRecordKey = "ResourceRecordKey"
	ResourceRecordURL = "ResourceRecordUrl"
	EventType         = "EventType"
	FeedTypes         = "FeedTypes"
	Timestamp         = "EntityEventTimestamp"
)

var entityEvent = &EntityType{
	Namespace: "org.reso.metadata",
	Name:      "EntityEvent",
	Key:       Sequence,
	Properties: []*Property{
		{Name: Sequence, Type: Int64},
		{Name: ResourceName, Type: String, MaxLength: event.NameCharactersMax},
		{Name: ResourceRecordKey, Type: String, MaxLength: event.NameCharactersMax},
		{Name: ResourceRecordURL, Type: String, MaxLength: event.URLCharactersMax, Nullable: true},
		{Name: EventType, Type: String, MaxLength: event.NameCharactersMax, Nullable: true},
		{Name: FeedTypes, Type: String, Collection: true, MaxLength: event.NameCharactersMax},
		{Name: Timestamp, Type: DateTimeOffset, Precision: 6},
	},
}

// EntityEvent is the entity type of RCP-27's EntityEvent resource.
func EntityEvent() *EntityType { return entityEvent }

// Row gives the value of a property of one entity: an int64, string, time.Time or
// []string, as the property says, or nil.
type Row func(p *Property) any

// EventRow is the entity of an event. url is the ResourceRecordUrl of events that
// came without one; empty: null.
func EventRow(e *event.Event, url string) Row {
	return func(p *Property) any {
		switch p.Name {
		case Sequence:
			return e.Sequence
		case ResourceName:
			return e.ResourceName
		case ResourceRecordKey:
			return e.ResourceRecordKey
		case ResourceRecordURL:
			return orNull(e.ResourceRecordURL, url)
		case EventType:
			return orNull(e.EventType)
		case FeedTypes:
			return e.FeedTypes
		case Timestamp:
			return e.RecordedAt.UTC().Truncate(time.Microsecond)
		}
		return nil
	}
}

// orNull is the first text that is not empty, else nil.
func orNull(texts ...string) any {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return nil
}
