package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBill reads this test's own binary, which links one module.
func TestBill(t *testing.T) {
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var notices, sbom, again bytes.Buffer
	for w, args := range map[*bytes.Buffer][]string{&notices: {"notices", file}, &sbom: {"sbom", file, "1.2.3"}, &again: {"sbom", file, "1.2.3"}} {
		if err := run(args, w); err != nil {
			t.Fatal(err)
		}
	}
	for _, wanted := range []string{
		"github.com/google/licensecheck v0.3.1 (BSD-3-Clause)", "Copyright (c) 2019 The Go Authors", "\nstd 1.",
	} {
		if !strings.Contains(notices.String(), wanted) {
			t.Errorf("no %q in the notices:\n%.2000s", wanted, notices.String())
		}
	}
	var doc document
	if err := json.Unmarshal(sbom.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Components) != 2 || doc.Metadata.Component.Version != "1.2.3" {
		t.Errorf("document %s", sbom.String())
	}
	if c := doc.Components[0]; c.PURL != "pkg:golang/github.com/google/licensecheck@v0.3.1" || len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 {
		t.Errorf("component %+v", c)
	}
	if !bytes.Equal(sbom.Bytes(), again.Bytes()) {
		t.Error("two documents of one binary differ")
	}
}

func TestUnknownLicense(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"main.go": "package main", "LICENSE": "Do as we say."} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&part{Path: "example.com/x", Version: "v1.0.0"}).findLicenses(dir); err == nil || !strings.Contains(err.Error(), "example.com/x@v1.0.0") {
		t.Errorf("error %v", err)
	}
}
