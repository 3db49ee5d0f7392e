package odata_test

import (
	"errors"
	"os"
	"testing"

	"postroad/api/odata"
	"postroad/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

var entityEvent = odata.EntityEvent()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filter(t testing.TB, text string) *odata.Filter {
	t.Helper()
	f, err := odata.ParseFilter(entityEvent, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

// refusal is the *odata.Error that err must be.
func refusal(t testing.TB, err error) *odata.Error {
	t.Helper()
	var refused *odata.Error
	if !errors.As(err, &refused) {
		t.Fatalf("error %v is no *odata.Error", err)
	}
	return refused
}
