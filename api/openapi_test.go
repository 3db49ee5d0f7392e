package api_test

import (
	"html"
	"maps"
	"mime"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const documentURL = "mem:///openapi.json"

// description is openapi.yaml, compiled for checking answers.
type description struct {
	root  map[string]any
	paths []pathPattern

	mu       sync.Mutex // the compiler is not safe for concurrent use
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

type pathPattern struct {
	template string
	pattern  *regexp.Regexp
}

var describe = sync.OnceValues(func() (*description, error) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	d := &description{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		return nil, err
	}
	parameter := regexp.MustCompile(`\\\{\w+\\\}`)
	for path := range d.root["paths"].(map[string]any) {
		pattern := "^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]*") + "$"
		d.paths = append(d.paths, pathPattern{path, regexp.MustCompile(pattern)})
	}
	// /docs before /{anything}: the one with fewer parameters is meant.
	slices.SortFunc(d.paths, func(a, b pathPattern) int {
		return strings.Count(a.template, "{") - strings.Count(b.template, "{")
	})
	// Clients must put up with new members; our own answers may hold none that is not described.
	closeObjects(d.root)
	d.compiler.AssertFormat()
	return d, d.compiler.AddResource(documentURL, toJSON(d.root))
})

// closeObjects forbids members that are not described.
func closeObjects(node any) {
	switch v := node.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok && v["type"] == "object" {
			if _, ok := v["additionalProperties"]; !ok {
				v["additionalProperties"] = false
			}
		}
		for _, child := range v {
			closeObjects(child)
		}
	case []any:
		for _, child := range v {
			closeObjects(child)
		}
	}
}

// toJSON turns what YAML decodes to into what the validator takes.
func toJSON(node any) any {
	switch v := node.(type) {
	case map[string]any:
		m := map[string]any{}
		for name, child := range v {
			m[name] = toJSON(child)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, child := range v {
			list[i] = toJSON(child)
		}
		return list
	case int:
		return float64(v)
	}
	return node
}

func object(node any, names ...string) map[string]any {
	m, _ := node.(map[string]any)
	for _, name := range names {
		m, _ = m[name].(map[string]any)
	}
	return m
}

// response finds the description of an answer: its location in the document.
func (d *description) response(method, path string, status int) (location []string, response map[string]any) {
	for _, p := range d.paths {
		if !p.pattern.MatchString(path) {
			continue
		}
		responses := object(d.root, "paths", p.template, strings.ToLower(method), "responses")
		key := strconv.Itoa(status)
		if responses[key] == nil {
			key = "default"
		}
		location = []string{"paths", p.template, strings.ToLower(method), "responses", key}
		if responses[key] == nil {
			break
		}
		response = object(responses, key)
		if ref, ok := response["$ref"].(string); ok {
			location = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
			response = object(d.root, location...)
		}
		return location, response
	}
	if strings.HasPrefix(path, "/odata/") && status >= 400 {
		location = []string{"components", "responses", "ODataError"}
		return location, object(d.root, location...)
	}
	if status >= 400 {
		location = []string{"components", "responses", "Problem"}
		return location, object(d.root, location...)
	}
	return nil, nil
}

func (d *description) schema(location []string) (*jsonschema.Schema, error) {
	pointer := ""
	for _, name := range location {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.schemas[pointer]; s != nil {
		return s, nil
	}
	s, err := d.compiler.Compile(documentURL + "#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer))
	d.schemas[pointer] = s
	return s, err
}

// checkDescribed holds an answer against the API's description.
func checkDescribed(t testing.TB, method, path string, a answer) {
	t.Helper()
	d, err := describe()
	must(t, err)
	path, _, _ = strings.Cut(path, "?")
	location, response := d.response(method, path, a.status)
	if response == nil {
		t.Errorf("%s %s: status %d is not described", method, path, a.status)
		return
	}
	content := object(response, "content")
	if len(content) == 0 {
		if len(a.body) > 0 {
			t.Errorf("%s %s: %d has a body that is not described: %s", method, path, a.status, a.body)
		}
		return
	}
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || content[media] == nil {
		t.Errorf("%s %s: content type %q is not described for %d", method, path, a.header.Get("Content-Type"), a.status)
		return
	}
	for name := range object(response, "headers") {
		if a.header.Get(name) == "" {
			t.Errorf("%s %s: no header %s", method, path, name)
		}
	}
	if !strings.HasSuffix(media, "json") {
		return
	}
	schema, err := d.schema(append(slices.Clone(location), "content", media, "schema"))
	must(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(a.body)))
	if err != nil {
		t.Errorf("%s %s: %v in %s", method, path, err, a.body)
		return
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%s", method, path, err, a.body)
	}
}

func TestOpenAPI_routesAndDescriptionAgree(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	d, err := describe()
	must(t, err)
	// One handler answers what is described path by path, and HEAD as GET.
	odata := regexp.MustCompile(`^(GET|HEAD) /odata/\{feed\}.*`)
	described := map[string]bool{}
	for path, item := range object(d.root, "paths") {
		for method := range object(item) {
			if method != "parameters" {
				described[odata.ReplaceAllString(strings.ToUpper(method)+" "+path, "GET /odata/{feed}")] = true
			}
		}
	}
	routed := map[string]bool{}
	parameter := regexp.MustCompile(`:(\w+)`)
	for _, route := range b.server.Handler().(*gin.Engine).Routes() {
		routed[odata.ReplaceAllString(route.Method+" "+parameter.ReplaceAllString(route.Path, "{$1}"), "GET /odata/{feed}")] = true
	}
	for _, name := range slices.Sorted(maps.Keys(described)) {
		if !routed[name] {
			t.Errorf("%s is described, but no route", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(routed)) {
		if !described[name] {
			t.Errorf("%s is a route, but not described", name)
		}
	}
}

// TestOpenAPI_schemasCompile also finds references that lead nowhere.
func TestOpenAPI_schemasCompile(t *testing.T) {
	t.Parallel()
	d, err := describe()
	must(t, err)
	for name := range object(d.root, "components", "schemas") {
		if _, err := d.schema([]string{"components", "schemas", name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenAPI_served(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var document struct {
		OpenAPI string
		Info    struct{ Version string }
		Paths   map[string]any
	}
	b.call("GET", "/openapi.json", "", "Authorization", "").want(200, &document)
	if document.OpenAPI != "3.1.0" || document.Info.Version != "dev" || len(document.Paths) == 0 {
		t.Errorf("%+v", document)
	}
	page := b.call("GET", "/docs", "", "Authorization", "").want(200, nil)
	for path := range document.Paths {
		if !strings.Contains(string(page.body), html.EscapeString(path)) {
			t.Errorf("the page lacks %s", path)
		}
	}
	if strings.Contains(string(page.body), "<script") || strings.Contains(string(page.body), "src=") {
		t.Error("the page wants something from outside")
	}
}
