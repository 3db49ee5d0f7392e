package odata_test

import (
	"strings"
	"testing"

	"postroad/api/odata"
)

// TestFilter/canonical: what is read is what was meant, by its canonical form,
// and that form reads as itself.
func TestFilter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"greater":                   {"EntityEventSequence gt 100", "EntityEventSequence gt 100"},
		"operators in any case":     {"EntityEventSequence GT 1 AND ResourceName Eq 'A'", "EntityEventSequence gt 1 and ResourceName eq 'A'"},
		"white space":               {"  EntityEventSequence\tgt  1 ", "EntityEventSequence gt 1"},
		"negative":                  {"not(EntityEventSequence le -1)", "not (EntityEventSequence le -1)"},
		"not without parentheses":   {"not EntityEventSequence le -1", "not (EntityEventSequence le -1)"},
		"not of an equality":        {"not ResourceName eq 'A' and true", "not (ResourceName eq 'A') and true"},
		"not binds more than eq":    {"not contains(ResourceName,'A') eq true", "not contains(ResourceName,'A') eq true"},
		"not of not":                {"not not (true)", "not not true"},
		"and before or":             {"true or false and false", "true or false and false"},
		"parentheses kept":          {"(true or false) and false", "(true or false) and false"},
		"parentheses dropped":       {"((true) and (((false))))", "true and false"},
		"chains are one":            {"true and (false and (true and false))", "true and false and true and false"},
		"relation before equality":  {"true eq 1 gt 2", "true eq 1 gt 2"},
		"equality in relation":      {"(true eq false) gt false", "(true eq false) gt false"},
		"right operand grouped":     {"true eq (true eq false)", "true eq (true eq false)"},
		"quotes":                    {"ResourceRecordKey eq 'O''Neil''s'", "ResourceRecordKey eq 'O''Neil''s'"},
		"empty string":              {"ResourceRecordKey eq ''", "ResourceRecordKey eq ''"},
		"keywords in a string":      {"ResourceRecordKey eq 'a and b eq (c'", "ResourceRecordKey eq 'a and b eq (c'"},
		"literal first":             {"'A' eq ResourceName", "'A' eq ResourceName"},
		"null":                      {"ResourceRecordUrl ne null", "ResourceRecordUrl ne null"},
		"string cast to a number":   {"EntityEventSequence gt '3'", "EntityEventSequence gt 3"},
		"string cast to a time":     {"EntityEventTimestamp gt '2026-01-02T03:04:05Z'", "EntityEventTimestamp gt 2026-01-02T03:04:05.000000000Z"},
		"string cast to a Boolean":  {"contains(ResourceName,'A') eq 'TRUE'", "contains(ResourceName,'A') eq true"},
		"time with a zone":          {"EntityEventTimestamp ge 2026-01-02T03:04:05.5+01:30", "EntityEventTimestamp ge 2026-01-02T01:34:05.500000000Z"},
		"plus lost in a URL":        {"EntityEventTimestamp ge 2026-01-02T03:04:05 01:30", "EntityEventTimestamp ge 2026-01-02T01:34:05.000000000Z"},
		"time without seconds":      {"EntityEventTimestamp ge 2026-01-02T03:04Z", "EntityEventTimestamp ge 2026-01-02T03:04:00.000000000Z"},
		"picoseconds":               {"EntityEventTimestamp ge 2026-01-02T03:04:05.123456789012Z", "EntityEventTimestamp ge 2026-01-02T03:04:05.123456789012Z"},
		"in of a condition":         {"(ResourceName eq 'A') in (true,null)", "(ResourceName eq 'A') in (true,null)"},
		"in of a negation":          {"(not true) in (true) or (true in ()) in ()", "(not true) in (true) or (true in ()) in ()"},
		"leap second's half":        {"EntityEventTimestamp lt 2016-12-31T23:59:60.5Z", "EntityEventTimestamp lt 2017-01-01T00:00:00.500000000Z"},
		"leap second":               {"EntityEventTimestamp lt 2016-12-31T23:59:60Z", "EntityEventTimestamp lt 2017-01-01T00:00:00.000000000Z"},
		"decimal":                   {"EntityEventSequence gt 1.50", "EntityEventSequence gt 1.5"},
		"decimal that is whole":     {"EntityEventSequence gt 1.0", "EntityEventSequence gt 1.0"},
		"exponent":                  {"EntityEventSequence gt 1.25e2", "EntityEventSequence gt 125.0"},
		"beyond 64 bits":            {"EntityEventSequence lt 9223372036854775808", "EntityEventSequence lt 9223372036854775808"},
		"list":                      {"ResourceName in ('A', 'B' ,'C')", "ResourceName in ('A','B','C')"},
		"list without a space":      {"ResourceName in('A')", "ResourceName in ('A')"},
		"empty list":                {"ResourceName in ()", "ResourceName in ()"},
		"list of casts":             {"EntityEventSequence in ('1',2,3.5,null)", "EntityEventSequence in (1,2,3.5,null)"},
		"in a collection":           {"'IDX' in FeedTypes", "'IDX' in FeedTypes"},
		"not in":                    {"not ResourceName in ('A') and true", "not ResourceName in ('A') and true"},
		"functions in any case":     {"StartsWith( ResourceName , 'A' ) and ENDSWITH(ResourceName,'B')", "startswith(ResourceName,'A') and endswith(ResourceName,'B')"},
		"function of null":          {"contains(null,ResourceName)", "contains(null,ResourceName)"},
		"any":                       {"FeedTypes/any(f:f eq 'IDX' or f eq ResourceName)", "FeedTypes/any(f:f eq 'IDX' or f eq ResourceName)"},
		"any of nothing":            {"FeedTypes/Any()", "FeedTypes/any()"},
		"all":                       {"FeedTypes/all( x : x ne 'VOW')", "FeedTypes/all(x:x ne 'VOW')"},
		"lambdas beside each other": {"FeedTypes/any(a:a eq 'A') and FeedTypes/all(a:a ne 'B')", "FeedTypes/any(a:a eq 'A') and FeedTypes/all(a:a ne 'B')"},
		"variable like a property":  {"FeedTypes/any(ResourceName:ResourceName eq 'IDX')", "FeedTypes/any(ResourceName:ResourceName eq 'IDX')"},
		"variable like a keyword":   {"FeedTypes/any(and:and eq 'IDX' and and ne 'A')", "FeedTypes/any(and:and eq 'IDX' and and ne 'A')"},
		"no spaces at parentheses":  {"(true)and(false)or(true)", "true and false or true"},
		"two properties":            {"ResourceName lt ResourceRecordKey", "ResourceName lt ResourceRecordKey"},
		"other scripts":             {"ResourceName eq 'Ünï 房'", "ResourceName eq 'Ünï 房'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := filter(t, c.text).String()
			if got != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
			}
			if again := filter(t, got).String(); again != got {
				t.Errorf("%s reads as %s", got, again)
			}
		})
	}
}

// TestFilterRefused: what is wrong is told with its place, and what OData defines
// and is not offered from what it does not know.
func TestFilterRefused(t *testing.T) {
	t.Parallel()
	const bad, missing = odata.BadRequest, odata.NotImplemented
	for name, c := range map[string]struct {
		text     string
		kind     odata.Kind
		position int
		says     string
	}{
		"empty":                     {"", bad, 1, "ends where a value"},
		"blank":                     {"   ", bad, 4, "ends where a value"},
		"unknown property":          {"Foo eq 1", bad, 1, `no property "Foo"`},
		"property in another case":  {"true or resourcename eq 'A'", bad, 9, "no property"},
		"place in characters":       {"ResourceName eq 'é' or Foo eq 1", bad, 24, "no property"},
		"unknown function":          {"frobnicate(ResourceName)", bad, 1, "no function"},
		"substringof of V3":         {"substringof('A',ResourceName)", bad, 1, "no function"},
		"function not offered":      {"tolower(ResourceName) eq 'a'", missing, 1, "tolower"},
		"function of geo":           {"geo.distance(a,b) gt 1", missing, 1, "geo.distance"},
		"arithmetic":                {"EntityEventSequence add 1 gt 3", missing, 21, "add"},
		"negation":                  {"-EntityEventSequence gt 3", missing, 1, "arithmetic"},
		"has":                       {"FeedTypes has 'IDX'", missing, 11, "has"},
		"parameter alias":           {"EntityEventSequence gt @p", missing, 24, "aliases"},
		"it":                        {"$it/ResourceName eq 'A'", missing, 1, "$it"},
		"JSON list":                 {"ResourceName in ['A']", bad, 17, "where ( is expected"},
		"JSON value":                {"ResourceName eq [1]", missing, 17, "JSON"},
		"not finite":                {"EntityEventSequence lt INF", missing, 24, "finite"},
		"not finite and negative":   {"EntityEventSequence gt -INF", missing, 24, "finite"},
		"duration":                  {"EntityEventTimestamp gt duration'P1D'", missing, 25, "duration"},
		"enumeration":               {"ResourceName eq Ns.Enum'A'", missing, 17, "Ns.Enum"},
		"datetime of V3":            {"EntityEventTimestamp gt datetime'2026-01-01T00:00:00'", bad, 25, "no literals"},
		"long of V3":                {"EntityEventSequence gt 3L", bad, 24, "no number"},
		"date":                      {"EntityEventTimestamp gt 2026-01-01", bad, 25, "needs a time"},
		"no time zone":              {"EntityEventTimestamp gt 2026-01-01T00:00:00", bad, 25, "time zone"},
		"no such day":               {"EntityEventTimestamp gt 2026-02-30T00:00:00Z", bad, 25, "no number"},
		"no such second":            {"EntityEventTimestamp gt 2026-02-03T00:00:61Z", bad, 25, "no number"},
		"no such half second":       {"EntityEventTimestamp gt 2026-02-03T00:00:61.5Z", bad, 25, "no number"},
		"year out of range":         {"EntityEventTimestamp gt 12026-02-03T00:00:00Z", bad, 25, "no number"},
		"year 0 by its zone":        {"EntityEventTimestamp gt 0001-01-01T00:00:00+01:00", bad, 25, "no number"},
		"GUID":                      {"ResourceRecordKey eq a0b1c2d3-0000-1111-2222-333344445555", bad, 22, "GUID"},
		"number for a string":       {"ResourceRecordKey eq 235021", bad, 22, "is not of type Edm.String"},
		"word for a number":         {"EntityEventSequence gt 'abc'", bad, 24, "is not of type Edm.Int64"},
		"fraction cast":             {"EntityEventSequence gt '1.5'", bad, 24, "is not of type Edm.Int64"},
		"cast beyond 64 bits":       {"EntityEventSequence gt '9223372036854775808'", bad, 24, "is not of type Edm.Int64"},
		"Boolean for a string":      {"ResourceName eq true", bad, 17, "is not of type Edm.String"},
		"types of two properties":   {"ResourceName eq EntityEventSequence", bad, 14, "do not compare"},
		"value for a condition":     {"ResourceName", bad, 1, "a condition is expected"},
		"value beside and":          {"true and ResourceName", bad, 10, "a condition is expected"},
		"value before and":          {"'A' and true", bad, 1, "a condition is expected"},
		"value under not":           {"not ResourceName", bad, 5, "a condition is expected"},
		"collection compared":       {"FeedTypes eq 'IDX'", bad, 1, "any or all"},
		"collection as a condition": {"FeedTypes", bad, 1, "Collection(Edm.String)"},
		"collection in a function":  {"contains(FeedTypes,'IDX')", missing, 10, "collections"},
		"collection counted":        {"FeedTypes/$count gt 1", missing, 11, "$count"},
		"path of a string":          {"ResourceName/any()", bad, 14, "no parts"},
		"path of a collection":      {"FeedTypes/first()", bad, 11, "any or all"},
		"all of nothing":            {"FeedTypes/all()", bad, 15, "name of a variable"},
		"no colon":                  {"FeedTypes/any(f f eq 'A')", bad, 17, ": is expected"},
		"variable out of scope":     {"FeedTypes/any(f:true) and f eq 'A'", bad, 27, "no property"},
		"lambda in a lambda":        {"FeedTypes/any(f:FeedTypes/any(g:true))", missing, 17, "within"},
		"variable named null":       {"FeedTypes/any(null:true)", bad, 15, "cannot be named"},
		"open parenthesis":          {"(true", bad, 6, ") is expected"},
		"closed twice":              {"(true))", bad, 7, "an operator or the end"},
		"open string":               {"ResourceName eq 'A", bad, 17, "closing quote"},
		"quote not doubled":         {"ResourceName eq 'O'Neil'", bad, 20, "operator or the end"},
		"no operator":               {"ResourceName 'A'", bad, 14, "operator or the end"},
		"unknown operator":          {"ResourceName like 'A'", bad, 14, "operator or the end"},
		"sign as an operator":       {"EntityEventSequence > 3", bad, 21, "not expected"},
		"equals":                    {"ResourceName = 'A'", bad, 14, "not expected"},
		"nothing after an operator": {"ResourceName eq", bad, 16, "ends where a value"},
		"no space before":           {"'A'eq ResourceName", bad, 4, "operator or the end"},
		"no space after":            {"ResourceName eq'A'", bad, 16, "space is expected after"},
		"no space after not":        {"not'A'", bad, 4, "space is expected after"},
		"one argument":              {"contains(ResourceName)", bad, 22, ", is expected"},
		"three arguments":           {"contains(ResourceName,'a','b')", bad, 26, ") is expected"},
		"argument of another type":  {"contains(ResourceName,3)", bad, 23, "takes a value of type"},
		"no list":                   {"ResourceName in 'A'", bad, 17, "( is expected"},
		"in a string":               {"ResourceName in ResourceRecordKey", bad, 17, "a list or a collection"},
		"property in a list":        {"ResourceName in ('A',ResourceRecordKey)", bad, 22, "a literal"},
		"type in a list":            {"ResourceName in ('A',3)", bad, 22, "is not of type"},
		"list with two commas":      {"ResourceName in ('A',,'B')", bad, 22, "a literal"},
		"list that ends in a comma": {"ResourceName in ('A',)", bad, 22, "a literal"},
		"TRUE is true, NULL is not": {"ResourceRecordUrl eq NULL", bad, 22, "no property"},
		"NUL":                       {"ResourceName eq '\x00'", bad, 0, "NUL"},
		"not UTF-8":                 {"ResourceName eq '\xff'", bad, 0, "UTF-8"},
		"too long":                  {"ResourceName eq '" + strings.Repeat("x", odata.FilterBytesMax) + "'", bad, 0, "longer"},
		"too deep":                  {strings.Repeat("(", 51) + "true" + strings.Repeat(")", 51), bad, 51, "nested"},
		"too many nots":             {strings.Repeat("not ", 51) + "true", bad, 205, "nested"},
		"too long a chain":          {"true" + strings.Repeat(" eq true", 51), bad, 406, "nested"},
		"too many nodes":            {"true" + strings.Repeat(" or true", 500), bad, 4001, "more than 1000"},
		"too long a list":           {"EntityEventSequence in (0" + strings.Repeat(",1", 1000) + ")", bad, 2025, "at most 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := odata.ParseFilter(entityEvent, c.text)
			if err == nil {
				t.Fatalf("read as %s", f)
			}
			got := refusal(t, err)
			if got.Kind != c.kind || got.Position != c.position || !strings.Contains(got.Detail, c.says) || got.Target != "$filter" {
				t.Errorf("got %d %s, want %d at %d with %q", got.Kind.Status(), got, c.kind.Status(), c.position, c.says)
			}
		})
	}
}

// TestFilterWithinBounds: what is just within the bounds is read.
func TestFilterWithinBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"depth": strings.Repeat("(", 50) + "true" + strings.Repeat(")", 50),
		"nodes": "true" + strings.Repeat(" or true", 499),
		"list":  "EntityEventSequence in (0" + strings.Repeat(",1", 999) + ")",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			filter(t, text)
		})
	}
}
