// Command bill says what a Go binary is made of: `bill sbom BINARY` writes a
// CycloneDX 1.6 document, `bill notices BINARY` the licence of every module. It
// reads what the linker wrote into the binary, so it speaks of what is shipped
// and of nothing else, and gives the same bytes each time. A module without a
// licence that it knows is an error. It is a module of its own: what it needs is
// no dependency of Postroad.
package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bill:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("usage: bill sbom|notices BINARY [VERSION]")
	}
	parts, err := read(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "sbom":
		version := "devel"
		if len(args) == 3 {
			version = args[2]
		}
		return writeSBOM(w, parts, version)
	case "notices":
		return writeNotices(w, parts)
	}
	return fmt.Errorf("no command %q", args[0])
}

// part is a module that is linked in, or Go's own library.
type part struct {
	Path, Version string
	// Sum is go.sum's, "h1:" and a SHA-256 of the module's files in base64; empty
	// for Go itself.
	Sum string
	// Licenses are SPDX identifiers, Texts the files that they were found in.
	Licenses []string
	Texts    []text
	// Judgement is what a person found where there is no identifier.
	Judgement string
}

// text is a licence or notice file of a module.
type text struct{ name, body string }

// binary is what a binary is made of.
type binary struct {
	// Path is the main package's.
	Path  string
	Parts []part
}

// read reads what is linked into file, and the licences from the module cache.
func read(file string) (*binary, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read binary: %w", err)
	}
	b := &binary{Path: info.Path}
	var names []string
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Parts = append(b.Parts, part{Path: m.Path, Version: m.Version, Sum: m.Sum})
		names = append(names, m.Path+"@"+m.Version)
	}
	dirs, err := moduleDirs(names)
	if err != nil {
		return nil, err
	}
	goRoot, err := goOutput("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	b.Parts = append(b.Parts, part{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})
	dirs["std@"+b.Parts[len(b.Parts)-1].Version] = strings.TrimSpace(string(goRoot))
	slices.SortFunc(b.Parts, func(a, b part) int { return cmp.Compare(a.Path, b.Path) })
	var unknown []error
	for i := range b.Parts {
		p := &b.Parts[i]
		if err := p.findLicenses(dirs[p.Path+"@"+p.Version]); err != nil {
			unknown = append(unknown, err)
		}
	}
	return b, errors.Join(unknown...)
}

func goOutput(args ...string) ([]byte, error) {
	command := exec.Command("go", args...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run go %s: %w", args[0], err)
	}
	return out, nil
}

// moduleDirs returns where each module's files are.
func moduleDirs(names []string) (map[string]string, error) {
	dirs := map[string]string{}
	if len(names) == 0 {
		return dirs, nil
	}
	out, err := goOutput(append([]string{"mod", "download", "-json"}, names...)...)
	if err != nil {
		return nil, err
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Version, Dir string }
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, fmt.Errorf("read modules: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

// legal is what files are named that say what one may do.
var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense|notice|patents)([-._].*)?$`)

// findLicenses reads the licence files at the root of a module.
func (p *part) findLicenses(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read module %s: %w", p.Path, err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !legal.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return fmt.Errorf("read module %s: %w", p.Path, err)
		}
		p.Texts = append(p.Texts, text{entry.Name(), string(body)})
		p.Licenses = append(p.Licenses, identify(body)...)
	}
	slices.Sort(p.Licenses)
	p.Licenses = slices.Compact(p.Licenses)
	if judgement := judged[p.Path+"@"+p.Version]; len(p.Licenses) == 0 && judgement != "" {
		p.Judgement = judgement
		return nil
	}
	if len(p.Licenses) == 0 {
		return fmt.Errorf("module %s@%s has no licence that is known", p.Path, p.Version)
	}
	return nil
}

func writeNotices(w io.Writer, b *binary) error {
	var out strings.Builder
	fmt.Fprintf(&out, "This program contains the software of others, under these licences.\n")
	for _, p := range b.Parts {
		fmt.Fprintf(&out, "\n%s\n%s %s (%s)\n", strings.Repeat("=", 80), p.Path, p.Version, cmp.Or(strings.Join(p.Licenses, ", "), p.Judgement))
		for _, t := range p.Texts {
			fmt.Fprintf(&out, "%s\n%s:\n\n%s\n", strings.Repeat("-", 80), t.name, strings.TrimRight(t.body, " \r\n\t"))
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// Of CycloneDX 1.6, the members that we fill.
type (
	document struct {
		Format      string      `json:"bomFormat"`
		SpecVersion string      `json:"specVersion"`
		Version     int         `json:"version"`
		Metadata    metadata    `json:"metadata"`
		Components  []component `json:"components"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type     string    `json:"type"`
		Ref      string    `json:"bom-ref"`
		Name     string    `json:"name"`
		Version  string    `json:"version"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licenses []license `json:"licenses,omitempty"`
		PURL     string    `json:"purl"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	license struct {
		License licenseID `json:"license"`
	}
	licenseID struct {
		ID   string `json:"id,omitempty"`
		Name string `json:"name,omitempty"`
	}
)

// writeSBOM leaves out serial number and time: the same binary gives the same
// document.
func writeSBOM(w io.Writer, b *binary, version string) error {
	purl := func(path, version string) string { return "pkg:golang/" + path + "@" + version }
	own := component{
		Type: "application", Ref: purl(b.Path, version), Name: b.Path, Version: version, PURL: purl(b.Path, version),
		Licenses: []license{{licenseID{ID: "Apache-2.0"}}},
	}
	doc := document{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{own}}
	for _, p := range b.Parts {
		c := component{Type: "library", Ref: purl(p.Path, p.Version), Name: p.Path, Version: p.Version, PURL: purl(p.Path, p.Version)}
		for _, id := range p.Licenses {
			c.Licenses = append(c.Licenses, license{licenseID{ID: id}})
		}
		if p.Judgement != "" {
			c.Licenses = []license{{licenseID{Name: p.Judgement}}}
		}
		if sum, ok := strings.CutPrefix(p.Sum, "h1:"); ok {
			raw, err := base64.StdEncoding.DecodeString(sum)
			if err != nil {
				return fmt.Errorf("read sum of %s: %w", p.Path, err)
			}
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		}
		doc.Components = append(doc.Components, c)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(doc)
}
