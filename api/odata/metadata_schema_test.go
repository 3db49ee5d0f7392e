package odata_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postroad/api/odata"
)

// validate holds a document against the schemas of OASIS.
func validate(t *testing.T, document []byte) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "metadata.xml")
	must(t, os.WriteFile(path, document, 0o600))
	out, err := exec.CommandContext(t.Context(), "xmllint", "--nonet", "--noout", "--schema", "testdata/edmx.xsd", path).CombinedOutput()
	return string(out), err
}

// TestMetadataDocumentSchema: $metadata is valid by the XML schemas of OASIS.
func TestMetadataDocumentSchema(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("xmllint"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("xmllint is missing: install Debian's package libxml2-utils")
		}
		t.Log("NOT RUN: xmllint is not installed here; it is in Debian's package libxml2-utils")
		return
	}
	for _, version := range []odata.Version{odata.V40, odata.V401} {
		document := odata.MetadataDocument(entityEvent, version)
		if out, err := validate(t, document); err != nil {
			t.Errorf("%s: %v\n%s\n%s", version, err, out, document)
		}
	}
	// It would say so.
	wrong := bytes.Replace(odata.MetadataDocument(entityEvent, odata.V401), []byte("<PropertyRef "), []byte("<PropertyRefs "), 1)
	if out, err := validate(t, wrong); err == nil || !strings.Contains(out, "PropertyRefs") {
		t.Errorf("a wrong document: %v %s", err, out)
	}
}
