package api_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postroad/api"
	"postroad/store"
)

// columns are those of the table in docs/SECURITY.md.
var columns = []string{"admin", "publisher", "reader", "subscriber", "no token"}

// roleTable reads docs/SECURITY.md: a cell by route and column.
func roleTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/SECURITY.md")
	must(t, err)
	table := map[string]map[string]string{}
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		route := strings.TrimSpace(cells[0])
		if len(cells) != 1+len(columns) || !strings.HasPrefix(route, "`") || !strings.Contains(route, " /") {
			continue
		}
		row := map[string]string{}
		for i, column := range columns {
			row[column] = strings.TrimSpace(cells[i+1])
		}
		table[strings.Trim(route, "`")] = row
	}
	return table
}

// describedRoles are the routes of the API's description, with their roles.
func describedRoles(t *testing.T) map[string][]string {
	t.Helper()
	d, err := describe()
	must(t, err)
	described := map[string][]string{}
	for path, item := range object(d.root, "paths") {
		for method, operation := range object(item) {
			if method == "parameters" {
				continue
			}
			roles := []string{}
			list, _ := object(operation)["x-postroad-roles"].([]any)
			for _, role := range list {
				roles = append(roles, fmt.Sprint(role))
			}
			described[strings.ToUpper(method)+" "+path] = roles
		}
	}
	return described
}

// TestRoles_described: table and description are of the same routes and say the
// same.
func TestRoles_described(t *testing.T) {
	t.Parallel()
	table, described := roleTable(t), describedRoles(t)
	for route := range table {
		if described[route] == nil {
			t.Errorf("docs/SECURITY.md has %s, which is no route", route)
		}
	}
	for route, got := range described {
		var want []string
		for _, column := range columns {
			switch cell := table[route][column]; cell {
			case "yes", "own":
				want = append(want, column)
			case "no":
			default:
				t.Errorf("docs/SECURITY.md has %q for %s of %s", cell, column, route)
			}
		}
		if slices.Equal(want, columns) {
			want = []string{"anyone"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: x-postroad-roles %v, docs/SECURITY.md %v", route, got, want)
		}
	}
}

// roleWorld is a server with feeds and subscribers and each kind of token.
type roleWorld struct {
	*bundle
	spareToken string            // the id of one that nobody uses
	tokens     map[string]string // "Authorization" by name
}

func newRoleWorld(t *testing.T) *roleWorld {
	w := &roleWorld{bundle: setup(t, options{}), tokens: map[string]string{"environment": "Bearer " + token}}
	for _, name := range []string{"mine", "theirs", "spare"} {
		w.call("POST", "/v1/feeds", `{"name":"`+name+`"}`).want(201, nil)
		w.call("POST", "/v1/subscribers", `{"id":"`+name+`","feed":"`+name+`","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	}
	for name, body := range map[string]string{
		"admin": `{"role":"admin"}`, "spare": `{"role":"admin"}`, "expired": `{"role":"admin"}`, "revoked": `{"role":"admin"}`,
		"publisher": `{"role":"publisher","feeds":["default","mine"]}`, "reader": `{"role":"reader","feeds":["mine"]}`,
		"subscriber": `{"role":"subscriber","subscriber":"mine"}`,
	} {
		var made struct{ ID, Token string }
		w.call("POST", "/v1/tokens", body).want(201, &made)
		w.tokens[name] = "Bearer " + made.Token
		switch name {
		case "spare":
			w.spareToken = made.ID
		case "expired":
			w.exec(`UPDATE tokens SET expires_at = clock_timestamp() WHERE id = $1`, made.ID)
		case "revoked":
			w.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
		}
	}
	delete(w.tokens, "spare")
	return w
}

// fill makes a path of a template, about the feed and subscriber of that name.
func (w *roleWorld) fill(template, name string) string {
	known := map[string]string{"{feed}": name, "{id}": name, "{token}": w.spareToken, "{code}": "busy"}
	return regexp.MustCompile(`\{\w+\}`).ReplaceAllStringFunc(template, func(parameter string) string {
		if value, ok := known[parameter]; ok {
			return value
		}
		return "1"
	})
}

// ask makes a request with one of the tokens.
func (w *roleWorld) ask(route, name, authorization string) answer {
	method, template, _ := strings.Cut(route, " ")
	body := "{}"
	if method == "GET" {
		body = ""
	}
	path := w.fill(template, name)
	if strings.HasSuffix(path, "/stream") {
		path += "?format=none" // it is let in, and has no end otherwise
	}
	return w.call(method, path, body, "Authorization", authorization)
}

// TestRoles makes each request that the API describes with each kind of token,
// and holds the answers against the table in docs/SECURITY.md.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := newRoleWorld(t)
	table := roleTable(t)
	routes := slices.Sorted(maps.Keys(describedRoles(t)))
	if len(routes) < 25 {
		t.Fatalf("the description has %d routes", len(routes))
	}
	requests := 0
	for _, route := range routes {
		row := table[route]
		check := func(who, about, authorization string, want int) {
			t.Helper()
			requests++
			status := w.ask(route, about, authorization).status
			if (status == 401 || status == 403) != (want != 0) || want != 0 && status != want {
				t.Errorf("%s about %s with the token %s: %d, and the table says %q", route, about, who, status, row)
			}
		}
		// 0 is anything but a refusal: the request may be wrong in other ways.
		allowed := func(yes bool, refusal int) int {
			if yes {
				return 0
			}
			return refusal
		}
		for _, role := range []string{store.RolePublisher, store.RoleReader, store.RoleSubscriber} {
			check(role, "mine", w.tokens[role], allowed(row[role] != "no", 403))
			check(role, "theirs", w.tokens[role], allowed(row[role] == "yes", 403))
			check(role, "nowhere", w.tokens[role], allowed(row[role] == "yes", 403))
		}
		for who, authorization := range map[string]string{
			"none": "", "expired": w.tokens["expired"], "revoked": w.tokens["revoked"], "that is none": "Bearer pr_none",
			"that nobody made": "Bearer pr_aaaaaaaaaa_" + strings.Repeat("a", 52), "in another scheme": "Basic " + token,
		} {
			check(who, "mine", authorization, allowed(row["no token"] == "yes", 401))
		}
		// Last, as an admin's requests delete.
		check("admin", "spare", w.tokens["admin"], allowed(row["admin"] == "yes", 403))
		check("environment", "spare", w.tokens["environment"], allowed(row["admin"] == "yes", 403))
	}
	t.Logf("%d requests to %d routes", requests, len(routes))
}

// TestRoles_tellNothing: the answer about another's is the same whether it
// exists or not.
func TestRoles_tellNothing(t *testing.T) {
	t.Parallel()
	w := newRoleWorld(t)
	requestID := regexp.MustCompile(`"requestId":"[^"]*"`)
	for route, who := range map[string]string{
		"GET /v1/subscribers/{id}": "subscriber", "POST /v1/subscribers/{id}/resume": "subscriber",
		"GET /v1/feeds/{feed}/events": "reader", "POST /v1/feeds/{feed}/events": "publisher",
	} {
		there := w.ask(route, "theirs", w.tokens[who])
		there.refused(403, "forbidden", "")
		if challenge := there.header.Get("WWW-Authenticate"); !strings.Contains(challenge, "insufficient_scope") {
			t.Errorf("%s: challenge %q", route, challenge)
		}
		for _, name := range []string{"nowhere", "%2F", "MINE", "mine%20"} {
			gone := w.ask(route, name, w.tokens[who])
			if got, want := requestID.ReplaceAllString(string(gone.body), ""), requestID.ReplaceAllString(string(there.body), ""); got != want {
				t.Errorf("%s about %s: %s, and about another's %s", route, name, got, want)
			}
		}
	}
}

func TestPermission_check(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path    string
		roles   []string
		refused string
	}{
		"none declared":                     {"/v1/feeds", nil, "no permission"},
		"admins":                            {"/v1/feeds", []string{"admin"}, ""},
		"a feed's without a feed":           {"/v1/feeds", []string{"admin", "reader"}, "names no feed"},
		"a publisher without a feed":        {"/v1/subscribers/:id", []string{"publisher"}, "names no feed"},
		"a feed's":                          {"/v1/feeds/:feed/events", []string{"reader"}, ""},
		"a subscriber without a subscriber": {"/v1/feeds/:feed/events", []string{"subscriber"}, "names no subscriber"},
		"a subscriber":                      {"/v1/subscribers/:id/status", []string{"subscriber"}, ""},
		"anyone":                            {"/docs", []string{"anyone"}, ""},
	} {
		err := api.CheckPermission("GET", c.path, c.roles...)
		if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
