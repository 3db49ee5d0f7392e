package api

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

//go:embed openapi.yaml
var openapiYAML []byte

//go:embed docs.html
var docsHTML string

// document is the API's description in the forms it is served in.
type document struct {
	json []byte
	page []byte
}

// loadDocument reads the description and puts the version into it.
func loadDocument(version string) (*document, error) {
	var root map[string]any
	if err := yaml.Unmarshal(openapiYAML, &root); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	info, ok := root["info"].(map[string]any)
	if !ok {
		return nil, errors.New("openapi.yaml has no info")
	}
	info["version"] = version
	text, err := json.Marshal(root, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode API description: %w", err)
	}
	page, err := renderDocs(root)
	if err != nil {
		return nil, fmt.Errorf("render API description: %w", err)
	}
	return &document{json: text, page: page}, nil
}

func (s *Server) openAPI(c *gin.Context) error {
	c.Header("Cache-Control", "no-cache")
	write(c, http.StatusOK, contentTypeJSON, s.document.json)
	return nil
}

func (s *Server) docs(c *gin.Context) error {
	c.Header("Cache-Control", "no-cache")
	c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	write(c, http.StatusOK, "text/html; charset=utf-8", s.document.page)
	return nil
}

// describeProblem is what a problem's type leads to.
func (s *Server) describeProblem(c *gin.Context) error {
	code := Code(c.Param("code"))
	kind, ok := kinds[code]
	if !ok {
		return notFound("code", "no such kind of problem")
	}
	return writeJSON(c, http.StatusOK, map[string]any{"type": "/problems/" + string(code), "title": kind.title, "status": kind.status})
}

// docsOperation is one operation as the page shows it.
type docsOperation struct {
	Method, Path, Summary, Description string
	Roles                              string
	Parameters                         []docsParameter
	Bodies                             []docsBody
}

type docsParameter struct{ Name, In, Description, Schema string }

type docsBody struct{ What, Schema string }

type docsSchema struct{ Name, Text string }

var docsMethods = []string{"get", "post", "put", "patch", "delete"}

// renderDocs makes the page once; it needs no script and nothing from outside.
func renderDocs(root map[string]any) ([]byte, error) {
	page := struct {
		Title, Version, Description string
		Operations                  []docsOperation
		Schemas                     []docsSchema
	}{
		Title: textOf(root, "info", "title"), Version: textOf(root, "info", "version"), Description: textOf(root, "info", "description"),
	}
	paths := member(root, "paths")
	for _, path := range sortedKeys(paths) {
		item := member(paths, path)
		for _, method := range docsMethods {
			operation := member(item, method)
			if operation == nil {
				continue
			}
			page.Operations = append(page.Operations, docsOperation{
				Method: strings.ToUpper(method), Path: path, Summary: textOf(operation, "summary"), Description: textOf(operation, "description"),
				Roles:      docsRoles(operation),
				Parameters: docsParameters(root, item["parameters"], operation["parameters"]),
				Bodies:     docsBodies(root, operation),
			})
		}
	}
	schemas := member(root, "components", "schemas")
	for _, name := range sortedKeys(schemas) {
		page.Schemas = append(page.Schemas, docsSchema{name, indented(schemas[name])})
	}
	t, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func docsRoles(operation map[string]any) string {
	roles, _ := operation["x-postroad-roles"].([]any)
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i], _ = role.(string)
	}
	return strings.Join(names, ", ")
}

func docsParameters(root map[string]any, lists ...any) []docsParameter {
	var parameters []docsParameter
	for _, list := range lists {
		entries, _ := list.([]any)
		for _, entry := range entries {
			p := resolve(root, entry)
			parameters = append(parameters, docsParameter{
				Name: textOf(p, "name"), In: textOf(p, "in"), Description: textOf(p, "description"), Schema: compact(p["schema"]),
			})
		}
	}
	return parameters
}

func docsBodies(root, operation map[string]any) []docsBody {
	var bodies []docsBody
	add := func(what string, body map[string]any) {
		content := member(body, "content")
		if content == nil {
			bodies = append(bodies, docsBody{What: what + ": " + textOf(body, "description")})
		}
		for _, media := range sortedKeys(content) {
			bodies = append(bodies, docsBody{what + ", " + media, compact(member(content, media)["schema"])})
		}
	}
	if body := member(operation, "requestBody"); body != nil {
		add("request", body)
	}
	responses := member(operation, "responses")
	for _, status := range sortedKeys(responses) {
		if status != "default" {
			add(status, resolve(root, responses[status]))
		}
	}
	return bodies
}

// resolve follows one local reference.
func resolve(root map[string]any, value any) map[string]any {
	m, _ := value.(map[string]any)
	reference, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	return member(root, strings.Split(strings.TrimPrefix(reference, "#/"), "/")...)
}

// member walks down objects; nil where one is absent.
func member(m map[string]any, names ...string) map[string]any {
	for _, name := range names {
		m, _ = m[name].(map[string]any)
	}
	return m
}

func textOf(m map[string]any, names ...string) string {
	text, _ := member(m, names[:len(names)-1]...)[names[len(names)-1]].(string)
	return strings.TrimSpace(text)
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// compact names a schema by its reference, or writes it in one line.
func compact(schema any) string {
	if m, ok := schema.(map[string]any); ok {
		if reference, ok := m["$ref"].(string); ok {
			return reference[strings.LastIndexByte(reference, '/')+1:]
		}
	}
	text, err := json.Marshal(schema, json.Deterministic(true))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(text), "#/components/schemas/", "")
}

func indented(schema any) string {
	text, err := json.Marshal(schema, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(text), "#/components/schemas/", "")
}
