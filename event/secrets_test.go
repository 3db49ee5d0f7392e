package event_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
)

// stored is what a database holds of a subscriber with every kind of secret.
func stored() event.Secrets {
	return event.Secrets{
		Token: "old-token", Password: "old-password", Value: "old-value",
		Headers: map[string]string{"X-Kept": "old-kept", "X-Old": "old-header"},
		Signing: []event.SigningSecret{
			{Secret: "whsec_new"}, {Secret: "whsec_old", ExpiresAt: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)},
		},
	}
}

func TestSplitSecretsGiven(t *testing.T) {
	t.Parallel()
	s := valid()
	s.Auth = event.Auth{Type: "bearer", Token: "t-secret", Password: "p-secret", Value: "v-secret", Username: "user", Name: "X-Name"}
	s.Signing.Secret = "whsec_s-secret"
	s.Endpoint.Headers = map[string]string{"X-B": "b-secret", "X-A": "a-secret"}
	shown, secrets, errs := s.SplitSecrets(event.Secrets{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want := event.Secrets{
		Token: "t-secret", Password: "p-secret", Value: "v-secret",
		Headers: map[string]string{"X-A": "a-secret", "X-B": "b-secret"},
		Signing: []event.SigningSecret{{Secret: "whsec_s-secret"}},
	}
	if diff := cmp.Diff(want, secrets); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	wantShown := valid()
	wantShown.Auth = event.Auth{Type: "bearer", TokenSet: true, PasswordSet: true, ValueSet: true, Username: "user", Name: "X-Name"}
	wantShown.Signing.SecretSet = true
	wantShown.Endpoint.HeadersSet = []string{"X-A", "X-B"}
	if diff := cmp.Diff(wantShown, shown); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
	text, err := json.Marshal(shown)
	if err != nil || strings.Contains(string(text), "-secret") {
		t.Errorf("the subscriber shows secrets: %s, %v", text, err)
	}
	if s.Auth.Token != "t-secret" || s.Endpoint.Headers["X-A"] != "a-secret" {
		t.Error("the subscriber that was given has changed")
	}
}

// TestSplitSecretsReturned: what GET answers can be sent back and changes
// nothing.
func TestSplitSecretsReturned(t *testing.T) {
	t.Parallel()
	shown := valid().Redacted(stored())
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	var back event.Subscriber
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, secrets, errs := back.SplitSecrets(stored())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if diff := cmp.Diff(stored(), secrets); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(shown, again); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

func TestSplitSecretsChanged(t *testing.T) {
	t.Parallel()
	for reason, row := range map[string]struct {
		change func(*event.Subscriber)
		want   func(*event.Secrets)
	}{
		"a new token replaces the old": {
			func(s *event.Subscriber) { s.Auth.Token = "new" },
			func(w *event.Secrets) { w.Token = "new" },
		},
		"no mark forgets the token": {
			func(s *event.Subscriber) { s.Auth.TokenSet = false },
			func(w *event.Secrets) { w.Token = "" },
		},
		"no mark forgets the password": {
			func(s *event.Subscriber) { s.Auth.PasswordSet = false },
			func(w *event.Secrets) { w.Password = "" },
		},
		"no mark forgets the value": {
			func(s *event.Subscriber) { s.Auth.ValueSet = false },
			func(w *event.Secrets) { w.Value = "" },
		},
		"a name left out of headersSet is forgotten": {
			func(s *event.Subscriber) { s.Endpoint.HeadersSet = []string{"X-Kept"} },
			func(w *event.Secrets) { delete(w.Headers, "X-Old") },
		},
		"a header sent wins over the one kept": {
			func(s *event.Subscriber) { s.Endpoint.Headers = map[string]string{"X-Old": "new"} },
			func(w *event.Secrets) { w.Headers["X-Old"] = "new" },
		},
		"also where its case differs": {
			func(s *event.Subscriber) { s.Endpoint.Headers = map[string]string{"x-old": "new"} },
			func(w *event.Secrets) { delete(w.Headers, "X-Old"); w.Headers["x-old"] = "new" },
		},
		"a signing secret ends every overlap": {
			func(s *event.Subscriber) { s.Signing.Secret = "whsec_mine" },
			func(w *event.Secrets) { w.Signing = []event.SigningSecret{{Secret: "whsec_mine"}} },
		},
		"the signing secret needs no mark": {
			func(s *event.Subscriber) { s.Signing.SecretSet = false },
			func(*event.Secrets) {},
		},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s, want := valid().Redacted(stored()), stored()
			row.change(&s)
			row.want(&want)
			shown, got, errs := s.SplitSecrets(stored())
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("secrets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(s.Redacted(want), shown); diff != "" {
				t.Errorf("shown (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSplitSecretsMissing: a mark without a stored secret names the member.
func TestSplitSecretsMissing(t *testing.T) {
	t.Parallel()
	s := valid()
	s.Auth = event.Auth{Type: "bearer", TokenSet: true, PasswordSet: true, ValueSet: true}
	s.Endpoint.HeadersSet = []string{"X-Kept", "X-Gone"}
	_, _, errs := s.SplitSecrets(event.Secrets{Headers: map[string]string{"X-Kept": "v"}})
	var got []string
	for _, e := range errs {
		got = append(got, e.Pointer)
	}
	want := []string{"/auth/tokenSet", "/auth/passwordSet", "/auth/valueSet", "/endpoint/headersSet/1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pointers (-want +got):\n%s", diff)
	}
}

func TestValidSigningSecret(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]bool{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":  true,
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":        true,
		"":                                        false,
		"whsec_":                                  false,
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS":   false, // padding left out
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_":  false, // the URL alphabet
		"whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": false,
		"WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":  false,
	} {
		if got := event.ValidSigningSecret(secret); got != want {
			t.Errorf("ValidSigningSecret(%q) = %t", secret, got)
		}
	}
}
