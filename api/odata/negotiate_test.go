package odata_test

import (
	"net/http"
	"testing"

	"postroad/api/odata"
)

func TestNegotiateVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version, most string
		want          odata.Version // empty: refused
	}{
		{"", "", "4.01"},
		{"", "4.0", "4.0"},
		{"", "4.01", "4.01"},
		{"", " 4.01 ", "4.01"},
		{"", "4.001", "4.0"},
		{"", "4.1", "4.01"},
		{"", "5.0", "4.01"},
		{"", "10.0", "4.01"},
		{"", "3.0", ""},
		{"", "4", ""},
		{"", "4.0.1", ""},
		{"", "latest", ""},
		{"", "-4.0", ""},
		{"4.0", "", "4.0"},
		{"4.01", "", "4.01"},
		{"4.01", "4.0", "4.0"},
		{"4.0", "4.01", "4.01"},
		{"3.0", "", ""},
		{"3.0", "4.0", ""},
		{"4.02", "", ""},
		{"5.0", "", ""},
		{"4.0;NetFx", "4.01;NetFx", "4.01"},
	} {
		h := http.Header{}
		if c.version != "" {
			h.Set("OData-Version", c.version)
		}
		if c.most != "" {
			h.Set("OData-MaxVersion", c.most)
		}
		got, err := odata.NegotiateVersion(h)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("OData-Version %q, OData-MaxVersion %q: %q, %v", c.version, c.most, got, err)
		}
		if err != nil && refusal(t, err).Kind != odata.BadRequest {
			t.Errorf("%q %q: %v", c.version, c.most, err)
		}
	}
}

func TestNegotiateFormat(t *testing.T) {
	t.Parallel()
	const (
		minimal = "application/json;odata.metadata=minimal;charset=utf-8"
		full    = "application/json;odata.metadata=full;charset=utf-8"
		strings = "application/json;odata.metadata=minimal;IEEE754Compatible=true;charset=utf-8"
		xml     = "application/xml"
	)
	for _, c := range []struct {
		kind   odata.ResourceKind
		accept []string
		want   string // empty: refused
	}{
		{odata.EntitySet, nil, minimal},
		{odata.EntitySet, []string{""}, minimal},
		{odata.EntitySet, []string{"*/*"}, minimal},
		{odata.EntitySet, []string{"application/*"}, minimal},
		{odata.EntitySet, []string{"application/json"}, minimal},
		{odata.EntitySet, []string{"Application/JSON; charset=UTF-8"}, minimal},
		{odata.EntitySet, []string{"application/json;odata.metadata=full"}, full},
		{odata.EntitySet, []string{"application/json;metadata=full"}, full},
		{odata.EntitySet, []string{"application/json;odata.metadata=FULL;odata.streaming=true"}, full},
		{odata.EntitySet, []string{`application/json;odata.metadata="full"`}, full},
		{odata.EntitySet, []string{"application/json;IEEE754Compatible=true"}, strings},
		{odata.EntitySet, []string{"application/json;IEEE754Compatible=false"}, minimal},
		{odata.EntitySet, []string{"text/html,application/xhtml+xml,*/*;q=0.8"}, minimal},
		{odata.EntitySet, []string{"application/json;q=0.5,application/json;odata.metadata=full;q=0.9"}, full},
		{odata.EntitySet, []string{"text/html", "application/json;odata.metadata=full"}, full},
		{odata.EntitySet, []string{"application/xml, application/json;q=0.1"}, minimal},
		{odata.EntitySet, []string{"application/json;odata.metadata=full, application/json"}, full},
		{odata.EntitySet, []string{"application/xml"}, ""},
		{odata.EntitySet, []string{"application/atom+xml"}, ""},
		{odata.EntitySet, []string{"application/json;q=0"}, ""},
		{odata.EntitySet, []string{"application/json;q=zero"}, ""},
		{odata.EntitySet, []string{"application/json;odata.metadata=some"}, ""},
		{odata.EntitySet, []string{"application/json;IEEE754Compatible=maybe"}, ""},
		{odata.EntitySet, []string{"application/json;frob=1"}, ""},
		{odata.EntitySet, []string{"application/json;charset=latin1"}, ""},
		{odata.EntitySet, []string{"application/json;frob=1, application/json"}, minimal},
		{odata.Entity, []string{"application/json;odata.metadata=full"}, full},
		{odata.ServiceRoot, []string{"application/xml"}, ""},
		{odata.Metadata, nil, xml},
		{odata.Metadata, []string{"application/xml"}, xml},
		{odata.Metadata, []string{"*/*"}, xml},
		{odata.Metadata, []string{"application/json"}, xml},
		{odata.EntityCount, []string{"application/json"}, "text/plain; charset=utf-8"},
	} {
		f, err := odata.NegotiateFormat(c.kind, "", c.accept)
		switch {
		case err != nil:
			if c.want != "" || refusal(t, err).Kind != odata.NotAcceptable {
				t.Errorf("%s, Accept %q: %v, want %s", c.kind, c.accept, err, c.want)
			}
		case f.ContentType() != c.want:
			t.Errorf("%s, Accept %q: %s, want %s", c.kind, c.accept, f.ContentType(), c.want)
		}
	}
}

// TestNegotiateFormatOption: $format counts, whatever Accept says.
func TestNegotiateFormatOption(t *testing.T) {
	t.Parallel()
	f, err := odata.NegotiateFormat(odata.EntitySet, "application/json;odata.metadata=none", []string{"text/html"})
	if err != nil || f.Metadata != odata.NoMetadata {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestPageSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefer []string
		want   int64
	}{
		{nil, 0},
		{[]string{"odata.maxpagesize=40"}, 40},
		{[]string{"maxpagesize=40"}, 40},
		{[]string{"MaxPageSize=40"}, 40},
		{[]string{`maxpagesize="40"`}, 40},
		{[]string{"maxpagesize = 40"}, 40},
		{[]string{"odata.maxpagesize=50, maxpagesize=20"}, 20},
		{[]string{"maxpagesize=20", "odata.maxpagesize=50"}, 20},
		{[]string{"maxpagesize=20,maxpagesize=30"}, 20},
		{[]string{"maxpagesize=0,maxpagesize=30"}, 0},
		{[]string{"maxpagesize=0"}, 0},
		{[]string{"maxpagesize=0,odata.maxpagesize=7"}, 7},
		{[]string{"maxpagesize=-1"}, 0},
		{[]string{"maxpagesize=x"}, 0},
		{[]string{"maxpagesize=1.5"}, 0},
		{[]string{"maxpagesize"}, 0},
		{[]string{"maxpagesize=1000000000"}, 1000000000},
		{[]string{`foo; bar="a,b", maxpagesize=5;x=y`}, 5},
		{[]string{`foo="a,maxpagesize=3,b", maxpagesize=5`}, 5},
		{[]string{`foo="a\",b", maxpagesize=5`}, 5},
		{[]string{"respond-async, wait=10"}, 0},
		{[]string{"return=minimal, odata.include-annotations=\"*\", odata.maxpagesize=9"}, 9},
	} {
		if got := odata.PageSize(c.prefer); got != c.want {
			t.Errorf("%q: %d, want %d", c.prefer, got, c.want)
		}
	}
	if got := odata.PreferenceApplied(odata.V40, 40); got != "odata.maxpagesize=40" {
		t.Error(got)
	}
	if got := odata.PreferenceApplied(odata.V401, 40); got != "maxpagesize=40" {
		t.Error(got)
	}
}
