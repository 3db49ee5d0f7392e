package main

import "github.com/google/licensecheck"

// coveredMin is how many percent of a file a licence's text has to cover: less
// is a file about something else that mentions one.
const coveredMin = 50

// identify returns the SPDX identifiers of the licences in a file.
func identify(body []byte) []string {
	coverage := licensecheck.Scan(body)
	if coverage.Percent < coveredMin {
		return nil
	}
	var ids []string
	for _, match := range coverage.Match {
		if !match.IsURL {
			ids = append(ids, match.ID)
		}
	}
	return ids
}

// judged are the modules whose licence no program finds, each as a person found
// it. Another version is judged anew.
var judged = map[string]string{
	// Its LICENSE says so in words of its own.
	"github.com/xi2/xz@v0.0.0-20171230120015-48954b6210f8": "public domain",
	// Generated from one .proto file, and linked by go.temporal.io/api, which is
	// under MIT. Its authors have published no licence with it.
	"github.com/nexus-rpc/nexus-proto-annotations@v0.1.0": "none published",
}
