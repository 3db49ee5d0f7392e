package odata_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/api/odata"
	"postroad/event"
)

const root = "http://h/odata/default/"

var shownEvents = []event.Event{
	{
		Sequence: 9007199254740993, ResourceName: "Property", ResourceRecordKey: `O'Neil "房" <&> \`, ResourceRecordURL: "http://u/?a=1&b=2",
		EventType: "Changed", FeedTypes: []string{"IDX", "VOW"}, RecordedAt: noon.Add(1500 * time.Nanosecond).In(time.FixedZone("", 3600)),
	},
	{Sequence: 4, ResourceName: "Member", ResourceRecordKey: "1", RecordedAt: noon},
}

// render is a page of the events shown, as a handler would write it.
func render(r odata.Renderer, count int64, nextLink string) string {
	r.Type, r.Root = entityEvent, root
	b := r.AppendHead(nil, count)
	for i := range shownEvents {
		b = r.AppendRow(b, odata.EventRow(&shownEvents[i], ""), i == 0)
	}
	return string(r.AppendTail(b, nextLink))
}

// TestRender: the JSON of pages, byte for byte.
func TestRender(t *testing.T) {
	t.Parallel()
	names := func(list ...string) (properties []*odata.Property) {
		for _, name := range list {
			properties = append(properties, entityEvent.Property(name))
		}
		return properties
	}
	minimal := odata.Format{Metadata: odata.MinimalMetadata}
	for name, c := range map[string]struct {
		got, want string
	}{
		"all": {
			render(odata.Renderer{Format: minimal}, -1, ""),
			`{"@odata.context":"http://h/odata/default/$metadata#EntityEvent","value":[` +
				`{"EntityEventSequence":9007199254740993,"ResourceName":"Property","ResourceRecordKey":"O'Neil \"房\" <&> \\","ResourceRecordUrl":"http://u/?a=1&b=2",` +
				`"EventType":"Changed","FeedTypes":["IDX","VOW"],"EntityEventTimestamp":"2026-03-04T12:00:00.000001Z"},` +
				`{"EntityEventSequence":4,"ResourceName":"Member","ResourceRecordKey":"1","ResourceRecordUrl":null,` +
				`"EventType":null,"FeedTypes":[],"EntityEventTimestamp":"2026-03-04T12:00:00.000000Z"}]}`,
		},
		"count, next link and strings": {
			render(odata.Renderer{
				Format: odata.Format{Metadata: odata.MinimalMetadata, IEEE754Compatible: true},
				Select: names(odata.Sequence, odata.ResourceName),
			}, 17, "http://h/x?$skiptoken=a&b"),
			`{"@odata.context":"http://h/odata/default/$metadata#EntityEvent(EntityEventSequence,ResourceName)","@odata.count":"17","value":[` +
				`{"EntityEventSequence":"9007199254740993","ResourceName":"Property"},{"EntityEventSequence":"4","ResourceName":"Member"}],` +
				`"@odata.nextLink":"http://h/x?$skiptoken=a&b"}`,
		},
		"without the key": {
			render(odata.Renderer{Format: minimal, Select: names(odata.ResourceName)}, 0, ""),
			`{"@odata.context":"http://h/odata/default/$metadata#EntityEvent(ResourceName)","@odata.count":0,"value":[` +
				`{"@odata.id":"EntityEvent(9007199254740993)","ResourceName":"Property"},{"@odata.id":"EntityEvent(4)","ResourceName":"Member"}]}`,
		},
		"no control information": {
			render(odata.Renderer{Format: odata.Format{Metadata: odata.NoMetadata}, Select: names(odata.ResourceName)}, 2, "n"),
			`{"@odata.count":2,"value":[{"ResourceName":"Property"},{"ResourceName":"Member"}],"@odata.nextLink":"n"}`,
		},
	} {
		if c.got != c.want {
			t.Errorf("%s\n got %s\nwant %s", name, c.got, c.want)
		}
	}

	r := odata.Renderer{Type: entityEvent, Root: root, Format: odata.Format{Metadata: odata.FullMetadata}}
	got := string(r.AppendEntity(nil, odata.EventRow(&shownEvents[1], "made up")))
	want := `{"@odata.context":"http://h/odata/default/$metadata#EntityEvent/$entity","@odata.type":"#org.reso.metadata.EntityEvent",` +
		`"@odata.id":"EntityEvent(4)","@odata.readLink":"EntityEvent(4)","EntityEventSequence@odata.type":"#Int64","EntityEventSequence":4,` +
		`"ResourceName":"Member","ResourceRecordKey":"1","ResourceRecordUrl":"made up","EventType":null,` +
		`"FeedTypes@odata.type":"#Collection(String)","FeedTypes":[],` +
		`"EntityEventTimestamp@odata.type":"#DateTimeOffset","EntityEventTimestamp":"2026-03-04T12:00:00.000000Z"}`
	if got != want {
		t.Errorf("one entity\n got %s\nwant %s", got, want)
	}
}

// TestRenderStrings: what strings look like is what encoding/json reads back.
func TestRenderStrings(t *testing.T) {
	t.Parallel()
	r := odata.Renderer{Type: entityEvent, Format: odata.Format{Metadata: odata.NoMetadata}}
	for _, text := range append([]string{"\x01\t\n\r", "\u2028", "\x7f", "<script>", "😀"}, texts...) {
		e := event.Event{ResourceName: text}
		var back struct{ ResourceName string }
		b := r.AppendEntity(nil, odata.EventRow(&e, ""))
		if err := json.Unmarshal(b, &back); err != nil || back.ResourceName != text {
			t.Errorf("%q: %s, %v", text, b, err)
		}
	}
}

func TestServiceDocument(t *testing.T) {
	t.Parallel()
	const want = `{"@odata.context":"http://h/odata/default/$metadata","value":[{"name":"EntityEvent","kind":"EntitySet","url":"EntityEvent"}]}`
	if got := string(odata.ServiceDocument(entityEvent, root, odata.Format{Metadata: odata.MinimalMetadata})); got != want {
		t.Errorf("got %s", got)
	}
	if got := string(odata.ServiceDocument(entityEvent, root, odata.Format{Metadata: odata.NoMetadata})); strings.Contains(got, "context") {
		t.Errorf("got %s", got)
	}
}

func TestErrorBody(t *testing.T) {
	t.Parallel()
	_, err := odata.ParseFilter(entityEvent, `"`)
	for name, c := range map[string]struct{ got, want string }{
		"refusal": {
			string(odata.ErrorBody(err, "", "")),
			`{"error":{"code":"BadRequest","message":"$filter at character 1: \"\\\"\" stands where a value is expected.","target":"$filter"}}`,
		},
		"without a target": {
			string(odata.ErrorBody(&odata.Error{Kind: odata.NotFound, Detail: "the path leads nowhere"}, "", "")),
			`{"error":{"code":"NotFound","message":"The path leads nowhere."}}`,
		},
		"any other": {
			string(odata.ErrorBody(errors.New("secret"), "Internal", "Something went wrong.")),
			`{"error":{"code":"Internal","message":"Something went wrong."}}`,
		},
	} {
		if c.got != c.want {
			t.Errorf("%s\n got %s\nwant %s", name, c.got, c.want)
		}
	}
}

// TestMetadataDocument: well-formed, with what clients look for.
func TestMetadataDocument(t *testing.T) {
	t.Parallel()
	type property struct {
		Name      string `xml:"Name,attr"`
		Type      string `xml:"Type,attr"`
		Nullable  string `xml:"Nullable,attr"`
		MaxLength string `xml:"MaxLength,attr"`
		Precision string `xml:"Precision,attr"`
	}
	type schema struct {
		Namespace  string `xml:"Namespace,attr"`
		EntityType struct {
			Name        string `xml:"Name,attr"`
			PropertyRef struct {
				Name string `xml:"Name,attr"`
			} `xml:"Key>PropertyRef"`
			Property []property
		}
		EntityContainer struct {
			Name      string `xml:"Name,attr"`
			EntitySet struct {
				Name       string `xml:"Name,attr"`
				EntityType string `xml:"EntityType,attr"`
			}
		}
	}
	want := []property{
		{"EntityEventSequence", "Edm.Int64", "false", "", ""},
		{"ResourceName", "Edm.String", "false", "255", ""},
		{"ResourceRecordKey", "Edm.String", "false", "255", ""},
		{"ResourceRecordUrl", "Edm.String", "true", "8000", ""},
		{"EventType", "Edm.String", "true", "255", ""},
		{"FeedTypes", "Collection(Edm.String)", "false", "255", ""},
		{"EntityEventTimestamp", "Edm.DateTimeOffset", "false", "", "6"},
	}
	for _, version := range []odata.Version{odata.V40, odata.V401} {
		text := odata.MetadataDocument(entityEvent, version)
		var document struct {
			XMLName      xml.Name `xml:"http://docs.oasis-open.org/odata/ns/edmx Edmx"`
			Version      string   `xml:"Version,attr"`
			DataServices struct {
				Schema schema `xml:"http://docs.oasis-open.org/odata/ns/edm Schema"`
			} `xml:"http://docs.oasis-open.org/odata/ns/edmx DataServices"`
		}
		must(t, xml.Unmarshal(text, &document))
		if document.Version != string(version) {
			t.Errorf("Version %q, want %q", document.Version, version)
		}
		s := document.DataServices.Schema
		if s.Namespace != "org.reso.metadata" || s.EntityType.Name != "EntityEvent" || s.EntityType.PropertyRef.Name != "EntityEventSequence" ||
			s.EntityContainer.Name != "Default" || s.EntityContainer.EntitySet.Name != "EntityEvent" ||
			s.EntityContainer.EntitySet.EntityType != "org.reso.metadata.EntityEvent" {
			t.Errorf("got %+v", s)
		}
		if !slices.Equal(s.EntityType.Property, want) {
			t.Errorf("got %+v, want %+v", s.EntityType.Property, want)
		}
	}
}

// TestMetadataDocumentEscapes: no name can break the document.
func TestMetadataDocumentEscapes(t *testing.T) {
	t.Parallel()
	odd := &odata.EntityType{Namespace: `a"b`, Name: "<x>", Key: "&", Properties: []*odata.Property{{Name: `'"<&%`, Type: odata.Int64}}}
	decoder := xml.NewDecoder(bytes.NewReader(odata.MetadataDocument(odd, odata.V401)))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "Property" && e.Attr[0].Value != `'"<&%` {
			t.Errorf("got %+v", e)
		}
	}
}
