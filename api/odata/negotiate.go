package odata

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Version is a version of the protocol, as OData-Version says it.
type Version string

// Versions that are offered.
const (
	V40  Version = "4.0"
	V401 Version = "4.01"
)

// Allow is the Allow header of an answer with status 405: every resource is read
// only (RFC 9110, section 15.5.6).
const Allow = "GET, HEAD"

// Vary names the request headers that answers depend on (OData-Protocol 8.3.8).
const Vary = "Accept, OData-MaxVersion, OData-Version, Prefer"

// NegotiateVersion is the version of the answer: the greatest that is offered and
// not above OData-MaxVersion (OData-Protocol 8.2.7). Without that header it is the
// one the request is in, if it says so, else the greatest. A request in a version
// that is not offered is refused (OData-Protocol 8.1.5). Errors: *Error.
func NegotiateVersion(h http.Header) (Version, error) {
	answer := V401
	if given := version(h, "OData-Version"); given != "" {
		if given != string(V40) && given != string(V401) {
			return "", refuse(BadRequest, "OData-Version", "must be 4.0 or 4.01")
		}
		answer = Version(given)
	}
	most := version(h, "OData-MaxVersion")
	if most == "" {
		return answer, nil
	}
	major, minor, ok := strings.Cut(most, ".")
	if !ok || !areDigits(major) || !areDigits(minor) || len(most) > 10 {
		return "", refuse(BadRequest, "OData-MaxVersion", "must be a version such as 4.01")
	}
	// Versions order as decimal numbers: 4.01 is between 4.0 and 4.1.
	n, _ := strconv.ParseFloat(most, 64)
	switch {
	case n < 4:
		return "", refuse(BadRequest, "OData-MaxVersion", "must be 4.0 or above")
	case n < 4.01:
		return V40, nil
	}
	return V401, nil
}

// version is a header's version. Some clients add to it what they are, as it was
// done before OData 4: "4.0;NetFx".
func version(h http.Header, name string) string {
	text, _, _ := strings.Cut(h.Get(name), ";")
	return strings.TrimSpace(text)
}

// MetadataLevel is how much control information is in a JSON answer (OData-JSON
// 3.1).
type MetadataLevel string

// Levels of control information.
const (
	MinimalMetadata MetadataLevel = "minimal"
	FullMetadata    MetadataLevel = "full"
	NoMetadata      MetadataLevel = "none"
)

// Format is the representation of an answer.
type Format struct {
	// XML: it is XML, which $metadata alone is.
	XML bool
	// Text: it is plain text, which $count alone is.
	Text bool
	// Metadata is the control information of JSON.
	Metadata MetadataLevel
	// IEEE754Compatible: 64-bit numbers are strings (OData-JSON 3.2).
	IEEE754Compatible bool
}

// ContentType is the answer's Content-Type.
func (f Format) ContentType() string {
	switch {
	case f.XML:
		return "application/xml"
	case f.Text:
		return "text/plain; charset=utf-8"
	}
	text := "application/json;odata.metadata=" + string(f.Metadata)
	if f.IEEE754Compatible {
		text += ";IEEE754Compatible=true"
	}
	return text + ";charset=utf-8"
}

// NegotiateFormat chooses the representation of a resource: $format decides, else
// the Accept header (OData-Protocol 8.2.1, 11.2.12). What is not offered, unknown
// parameters included, is NotAcceptable; $metadata is XML for whoever asks for
// another type by header, as clients send one Accept for all their requests, and
// $count is text. Errors: *Error.
func NegotiateFormat(kind ResourceKind, format string, accept []string) (Format, error) {
	if kind == EntityCount {
		return Format{Text: true}, nil
	}
	if format != "" {
		word := strings.ToLower(strings.TrimSpace(format))
		if full, ok := map[string]string{"json": "application/json", "xml": "application/xml"}[word]; ok {
			format = full
		}
		f, ok := offered(kind, format)
		if !ok {
			return Format{}, refuse(NotAcceptable, "$format", "%s of %s is not offered", shown(format), kind)
		}
		return f, nil
	}
	best, quality := Format{XML: kind == Metadata, Metadata: MinimalMetadata}, 0.0
	ranges := mediaRanges(accept)
	for _, r := range ranges {
		if f, ok := offered(kind, r.text); ok && r.quality > quality {
			best, quality = f, r.quality
		}
	}
	if quality == 0 && len(ranges) > 0 && kind != Metadata {
		return Format{}, refuse(NotAcceptable, "Accept", "%s is not offered in any of these types", kind)
	}
	return best, nil
}

// mediaRange is one entry of Accept without its weight.
type mediaRange struct {
	text    string
	quality float64
}

// mediaRanges splits Accept (RFC 9110, section 12.5.1).
func mediaRanges(accept []string) []mediaRange {
	const rangesMax = 50
	var list []mediaRange
	for _, text := range splitQuoted(strings.Join(accept, ","), ',') {
		parts := splitQuoted(text, ';')
		r := mediaRange{quality: 1}
		parts = slices.DeleteFunc(parts, func(part string) bool {
			name, value, ok := strings.Cut(part, "=")
			if !ok || !strings.EqualFold(strings.TrimSpace(name), "q") {
				return false
			}
			r.quality, _ = strconv.ParseFloat(strings.TrimSpace(value), 64)
			return true
		})
		r.text = strings.Join(parts, ";")
		if strings.TrimSpace(r.text) != "" && len(list) < rangesMax {
			list = append(list, r)
		}
	}
	return list
}

// splitQuoted splits a header's value at a separator outside quoted strings.
func splitQuoted(text string, separator byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quoted:
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

// offered is the representation of a resource in a media type, if there is one.
func offered(kind ResourceKind, text string) (Format, bool) {
	media, parameters, err := mime.ParseMediaType(text)
	if err != nil {
		return Format{}, false
	}
	f := Format{Metadata: MinimalMetadata}
	switch {
	case kind == Metadata:
		f = Format{XML: true}
		if !slices.Contains([]string{"application/xml", "text/xml", "application/*", "*/*"}, media) {
			return f, false
		}
	case !slices.Contains([]string{"application/json", "application/*", "*/*"}, media):
		return f, false
	}
	for name, value := range parameters {
		value = strings.ToLower(value)
		// The prefix is optional in 4.01 (OData-JSON 3.1).
		switch strings.TrimPrefix(name, "odata.") {
		case "metadata":
			f.Metadata = MetadataLevel(value)
			if kind == Metadata || !slices.Contains([]MetadataLevel{MinimalMetadata, FullMetadata, NoMetadata}, f.Metadata) {
				return f, false
			}
		case "ieee754compatible":
			f.IEEE754Compatible = value == "true"
			if kind == Metadata || value != "true" && value != "false" {
				return f, false
			}
		case "streaming", "exponentialdecimals": // answers are the same with and without
			if value != "true" && value != "false" {
				return f, false
			}
		case "charset":
			if value != "utf-8" {
				return f, false
			}
		default:
			return f, false
		}
	}
	return f, true
}

// PageSize is the page size a client prefers: maxpagesize, or odata.maxpagesize as
// 4.0 calls it, the former where both are there (OData-Protocol 8.2.8.5); 0: it has
// no preference that can be met. It is not bounded. Unknown preferences and values
// are ignored (RFC 7240, section 2); of a repeated one the first counts.
func PageSize(prefer []string) int64 {
	found := map[string]int64{}
	for _, text := range splitQuoted(strings.Join(prefer, ","), ',') {
		preference := splitQuoted(text, ';')[0]
		name, value, _ := strings.Cut(preference, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, repeated := found[name]; repeated {
			continue
		}
		found[name] = 0
		value = strings.Trim(strings.TrimSpace(value), `"`)
		if n, err := readNumber("Prefer", value); err == nil {
			found[name] = n
		}
	}
	if n := found["maxpagesize"]; n > 0 {
		return n
	}
	return found["odata.maxpagesize"]
}

// PreferenceApplied is the Preference-Applied header of an answer whose pages have
// the size that was preferred.
func PreferenceApplied(version Version, size int64) string {
	name := "odata.maxpagesize="
	if version == V401 {
		name = "maxpagesize="
	}
	return name + strconv.FormatInt(size, 10)
}
