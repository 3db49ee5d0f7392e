package odata

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// MetadataDocument is $metadata in XML (OData-CSDLXML): the entity type and a
// container, as RESO's own metadata name it, with its one entity set.
func MetadataDocument(t *EntityType, version Version) []byte {
	var b strings.Builder
	line := func(depth int, format string, args ...any) {
		for i, arg := range args {
			if text, ok := arg.(string); ok {
				args[i] = escape(text)
			}
		}
		b.WriteString(strings.Repeat("  ", depth))
		fmt.Fprintf(&b, format+"\n", args...)
	}
	line(0, `<?xml version="1.0" encoding="UTF-8"?>`)
	line(0, `<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="%s">`, string(version))
	line(1, `<edmx:DataServices>`)
	line(2, `<Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="%s">`, t.Namespace)
	line(3, `<EntityType Name="%s">`, t.Name)
	line(4, `<Key>`)
	line(5, `<PropertyRef Name="%s"/>`, t.Key)
	line(4, `</Key>`)
	for _, p := range t.Properties {
		facets := ""
		if p.MaxLength > 0 {
			facets += fmt.Sprintf(` MaxLength="%d"`, p.MaxLength)
		}
		if p.Precision > 0 {
			facets += fmt.Sprintf(` Precision="%d"`, p.Precision)
		}
		line(4, `<Property Name="%s" Type="%s" Nullable="%t"`+facets+`/>`, p.Name, p.typeName(), p.Nullable)
	}
	line(3, `</EntityType>`)
	line(3, `<EntityContainer Name="Default">`)
	line(4, `<EntitySet Name="%s" EntityType="%s"/>`, t.Name, t.Namespace+"."+t.Name)
	line(3, `</EntityContainer>`)
	line(2, `</Schema>`)
	line(1, `</edmx:DataServices>`)
	line(0, `</edmx:Edmx>`)
	return []byte(b.String())
}

// escape makes a text fit for an attribute.
func escape(text string) string {
	var b strings.Builder
	if xml.EscapeText(&b, []byte(text)) != nil { // a Builder takes everything
		return ""
	}
	return b.String()
}
